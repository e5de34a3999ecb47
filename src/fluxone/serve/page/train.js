// The training tab: start a run on a folder of this machine, watch it, pause, continue and stop it.

import { call } from "/api.js";

const $ = (id) => document.getElementById(id);
const EVERY = 1000;        // ms
const STEPS = 160;         // px of a curve's width
let shown = false, timer = null;

function make(tag, told = {}, ...inside) {
  const made = Object.assign(document.createElement(tag), told);
  made.append(...inside);
  return made;
}

function time(seconds) {
  if (seconds === null) return "";
  return seconds < 90 ? `${seconds} s left` : `${Math.round(seconds / 60)} min left`;
}

// The loss as one line, the newest to the right.
function curve(values) {
  const canvas = make("canvas", { width: STEPS, height: 40, className: "curve" });
  if (values.length < 2) return canvas;
  const pen = canvas.getContext("2d"), most = Math.max(...values), least = Math.min(...values);
  pen.strokeStyle = getComputedStyle(document.body).color;
  values.forEach((value, n) => pen.lineTo(n / (values.length - 1) * STEPS, 38 - 36 * (value - least) / Math.max(most - least, 1e-9)));
  pen.stroke();
  return canvas;
}

const ACTS = { running: ["pause", "stop"], paused: ["continue", "stop"], failed: ["continue"] };

function row(run) {
  const act = (what) => {
    const button = make("button", { type: "button", className: "small", textContent: what });
    button.dataset.act = what;
    button.addEventListener("click", () => call(`/v1/training/${run.id}/${what}`, { method: "POST" }).then(refresh, trouble));
    return button;
  };
  const samples = run.samples.map((name) => make("img", { src: `/v1/training/${run.id}/${name}`, alt: `step ${run.looked_at}` }));
  const links = run.report ? [make("a", { href: `/v1/training/${run.id}/report`, target: "_blank", textContent: "report" })] : [];
  const made = make("li", {},
    make("h3", { textContent: `${run.name || run.folder.split("/").pop()} — ${run.what} on ${run.model}` }),
    make("p", { className: "state", textContent: [run.state, run.steps ? `step ${run.step} of ${run.steps}` : "", time(run.seconds_left)].filter(Boolean).join(" · ") }),
    make("progress", { max: run.steps || 1, value: run.step }),
    make("div", { className: "samples" }, ...samples),
    make("p", { className: "said", textContent: run.message }),
    make("div", { className: "tools" }, ...(ACTS[run.state] || []).map(act), ...links, curve(run.loss)),
  );
  if (run.files.length) made.append(make("p", { className: "said", textContent: run.files.join("  ") }));
  made.dataset.state = run.state;
  return made;
}

const trouble = (error) => { $("train-message").textContent = error.message; };

async function refresh() {
  clearTimeout(timer);
  if (!shown) return;
  try {
    const runs = await call("/v1/training"), told = JSON.stringify(runs);
    if (told !== refresh.told) $("runs").replaceChildren(...runs.map(row));
    refresh.told = told;
  } catch (error) {
    trouble(error);
  }
  timer = setTimeout(refresh, EVERY);
}

function show(now) {
  shown = now;
  $("training").hidden = !now;
  document.querySelector("main").hidden = now;
  button.setAttribute("aria-selected", String(now));
  if (now) {
    for (const other of document.querySelectorAll("#modes [data-mode]")) other.setAttribute("aria-selected", "false");
    refresh();
  }
}

const button = make("button", { type: "button", textContent: "Train", role: "tab", id: "train-tab" });
button.setAttribute("aria-selected", "false");
button.addEventListener("click", () => show(true));
$("modes").append(button);
document.addEventListener("mode", () => { if (shown) show(false); });
$("train-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, told = Object.fromEntries(new FormData(form));
  const body = { what: told.what, folder: told.folder.trim(), name: told.name.trim(), class_word: told.class_word.trim(), model: told.model.trim() || "mini" };
  for (const name of ["steps", "size"]) if (told[name]) body[name] = Number(told[name]);
  $("train-message").textContent = "";
  await call("/v1/training", { method: "POST", body: JSON.stringify(body) }).then(refresh, trouble);
});
