// What was drawn before: ids and settings in this browser; the pictures themselves are the server's, for as long as it keeps them.

import { result } from "/api.js";

const KEPT = 120;
const STORE = "fluxone.gallery";
const LABELS = {
  mode: "Done by", prompt: "Words", seed: "Seed", steps: "Steps", guidance: "Guidance", size: "Size", aspect: "Shape",
  raw: "Raw", follow: "Shown", left: "Left", right: "Right", top: "Top", bottom: "Bottom", loras: "LoRAs",
  model: "Model", drawn: "Drawn at", seconds: "Time", notes: "Notes",
};

export const remembered = () => JSON.parse(localStorage.getItem(STORE) || "[]");
export const keep = (list) => localStorage.setItem(STORE, JSON.stringify(list.slice(0, KEPT)));
export const remember = (entry) => keep([entry, ...remembered().filter((old) => old.id !== entry.id)]);

export function table(list, entry) {
  list.replaceChildren();
  for (const [name, label] of Object.entries(LABELS)) {
    const value = entry[name];
    if (value === undefined || value === null || value === "" || value === false || value.length === 0) continue;
    const told = name === "seconds" ? `${value.toFixed(1)} s` : name === "loras" ? value.map((l) => `${l.name} ${l.scale}`).join(", ")
      : Array.isArray(value) ? value.join("; ") : String(value);
    list.append(Object.assign(document.createElement("dt"), { textContent: label }), Object.assign(document.createElement("dd"), { textContent: told }));
  }
}

// Fill the gallery anew; entries whose pictures the server has deleted are forgotten.
export async function gallery(list, clear, chosen) {
  const entries = remembered(), alive = [];
  const items = [];
  clear.hidden = !entries.length;
  for (const entry of entries) {
    let task;
    try {
      task = await result(entry.id);
    } catch (error) {
      if (error.status === 404) continue;   // its time has passed
      return;
    }
    alive.push(entry);
    if (task.status !== "Ready") continue;
    const button = Object.assign(document.createElement("button"), { type: "button", title: entry.prompt || entry.mode });
    button.append(Object.assign(new Image(), { src: task.result.sample, alt: entry.prompt || entry.mode, loading: "lazy" }));
    button.addEventListener("click", () => chosen(entry, task.result.sample));
    const item = document.createElement("li");
    item.append(button);
    items.push(item);
  }
  list.replaceChildren(...items);
  const now = remembered();
  keep(now.filter((entry) => alive.some((one) => one.id === entry.id) || !entries.some((one) => one.id === entry.id)));
}
