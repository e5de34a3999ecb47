"use strict";
// The page speaks the same API as every other client: post to an endpoint, then poll until the picture is there.

const ENDPOINT = "/v1/flux-dev";
const POLL = 250;          // ms
const KEPT = 60;           // pictures that the gallery remembers
const $ = (id) => document.getElementById(id);
const form = $("form"), picture = $("picture"), progress = $("progress"), message = $("message");
let current = null;        // id of what is being drawn

const remembered = () => JSON.parse(localStorage.getItem("fluxone.gallery") || "[]");
const remember = (list) => localStorage.setItem("fluxone.gallery", JSON.stringify(list.slice(0, KEPT)));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function call(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (form.key.value) headers["x-key"] = form.key.value;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer. Is it running?");
  }
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.message || answer.statusText), { status: answer.status });
  return body;
}

async function draw() {
  const asked = settings();
  const [width, height] = asked.size.split("x").map(Number);
  const body = { prompt: asked.prompt, width, height, steps: asked.steps, output_format: "png" };
  if (asked.seed !== "") body.seed = Number(asked.seed);
  busy(true);
  try {
    const task = await call(ENDPOINT, { method: "POST", body: JSON.stringify(body) });
    current = task.id;
    const result = await follow(task.id);
    if (result) {
      const entry = { ...asked, id: task.id, seed: String(result.seed), seconds: result.duration };
      remember([entry, ...remembered()]);
      show(entry, result.sample);
      gallery();
    }
  } catch (error) {
    message.textContent = error.message;
  } finally {
    current = null;
    busy(false);
  }
}

async function follow(id) {
  for (;;) {
    const task = await call("/v1/get_result?id=" + encodeURIComponent(id));
    if (task.status === "Ready") return task.result;
    if (task.status !== "Pending") {
      const why = task.details && (task.details.error || (task.details["Moderation Reasons"] || []).join(", "));
      throw new Error(why ? `${task.status}: ${why}` : task.status);
    }
    progress.value = task.progress || 0;
    if (task.preview) {
      picture.src = task.preview.sample;
      picture.classList.add("rough");
      picture.hidden = false;
      $("empty").hidden = true;
    }
    await sleep(POLL);
  }
}

function settings() {
  return { prompt: form.prompt.value.trim(), size: form.size.value, steps: Number(form.steps.value), seed: form.seed.value.trim() };
}

function show(entry, link) {
  picture.classList.remove("rough");
  picture.src = link;
  picture.alt = entry.prompt;
  picture.hidden = false;
  $("empty").hidden = true;
  const took = entry.seconds ? `, ${entry.seconds.toFixed(1)} s` : "";
  $("caption").textContent = `${entry.prompt} — ${entry.size}, ${entry.steps} steps, seed ${entry.seed}${took}`;
}

function busy(now) {
  form.querySelector("[type=submit]").disabled = now;
  $("cancel").hidden = !now;
  progress.hidden = !now;
  progress.value = 0;
  if (now) message.textContent = "";
}

async function gallery() {
  const list = remembered(), alive = [];
  $("gallery").replaceChildren();
  $("clear").hidden = !list.length;
  for (const entry of list) {
    let task;
    try {
      task = await call("/v1/get_result?id=" + encodeURIComponent(entry.id));
    } catch (error) {
      if (error.status === 404) continue;   // its time has passed
      return;
    }
    alive.push(entry);
    if (task.status !== "Ready") continue;
    const image = Object.assign(new Image(), { src: task.result.sample, alt: entry.prompt, loading: "lazy" });
    const button = document.createElement("button");
    button.type = "button";
    button.title = entry.prompt;
    button.append(image);
    button.addEventListener("click", () => {
      show(entry, task.result.sample);
      form.prompt.value = entry.prompt;
      form.size.value = entry.size;
      form.steps.value = entry.steps;
      form.seed.value = entry.seed;
      steps();
    });
    const item = document.createElement("li");
    item.append(button);
    $("gallery").append(item);
  }
  remember(alive);
}

function steps() { $("steps-shown").textContent = form.steps.value; }
async function cancel() { if (current) await call("/v1/cancel?id=" + current, { method: "POST" }).catch(() => {}); }

async function ready() {
  for (;;) {
    const state = await fetch("/readyz").then((answer) => answer.json()).catch(() => null);
    $("server").textContent = !state ? "the server does not answer" : state.trouble ? state.trouble
      : state.ready ? state.models.join(", ") + (state.waiting ? ` · ${state.waiting} waiting` : "") : "loading the models …";
    await sleep(state && state.ready ? 5000 : 500);
  }
}

form.addEventListener("submit", (event) => { event.preventDefault(); if (!current) draw(); });
form.steps.addEventListener("input", steps);
$("cancel").addEventListener("click", cancel);
$("clear").addEventListener("click", () => { remember([]); gallery(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();   // else it would also press whatever button has the focus
    form.requestSubmit();
  }
  if (event.key === "Escape") cancel();
});
steps();
gallery();
ready();
