// The page: what can be done, a form for it, the picture as it comes, and what was drawn before.

import { call, cancel, follow, key, post, result, sleep } from "/api.js";
import { gallery, keep, remember, remembered, table } from "/history.js";
import { Source } from "/source.js";

const $ = (id) => document.getElementById(id);
const form = $("form"), frame = $("frame"), message = $("message");
const FEW = 4, QUICK = 8;                       // steps of live pictures; a model of at most so many is made for them
const PAUSE = 140;                              // ms after the last key before a live picture is asked for
const SEEDS = 2 ** 31;
const MODES = {
  draw: { title: "Draw", endpoint: () => "flux-dev", label: "What is to be seen", hint: "a red fox reading a book under a tree", about: "A picture from words." },
  edit: { title: "Edit", endpoint: () => "flux-kontext-pro", label: "What is to change", hint: "make it night", about: "Change a picture by saying what is to be different.", source: true },
  fill: { title: "Fill", endpoint: () => "flux-pro-1.0-fill", label: "What is to be there instead", hint: "a small house", about: "Paint over what is to be drawn anew; the rest stays as it is.", source: true, least: 15 },
  expand: { title: "Expand", endpoint: () => "flux-pro-1.0-expand", label: "What is around it (may stay empty)", hint: "a wide meadow", about: "Let a picture grow on any side.", source: true, least: 15, words: false },
  follow: { title: "Follow", endpoint: () => "flux-pro-1.0-" + form.follow.value, label: "What is to be seen", hint: "a house in the snow", about: "Draw along the edges of a picture, or along given depths or limbs.", source: true, least: 15 },
  ultra: { title: "Ultra", endpoint: () => "flux-pro-1.1-ultra", label: "What is to be seen", hint: "a market on a harbour", about: "Four megapixels, drawn in two passes." },
};
const SETTINGS = ["prompt", "size", "aspect", "steps", "guidance", "follow", "left", "right", "top", "bottom"];
const SHOWN = {                                 // which settings belong to a mode
  draw: ["size", "steps", "guidance"], edit: [], fill: ["steps", "guidance"],
  expand: ["steps", "guidance", "left", "right", "top", "bottom"], follow: ["follow", "steps", "guidance"], ultra: ["aspect", "raw"],
};
let mode = "draw", served = {}, going = [], current = null, liveRun = 0, liveTimer = null, liveSeed = null, touched = false;

const source = new Source((trouble) => { message.textContent = trouble; });

function setMode(name) {
  mode = name;
  const row = MODES[name];
  document.dispatchEvent(new Event("mode"));
  for (const button of $("modes").querySelectorAll("[data-mode]")) button.setAttribute("aria-selected", String(button.dataset.mode === name));
  for (const part of form.querySelectorAll("[class*=on-]")) part.hidden = !part.classList.contains("on-" + name);
  $("prompt-label").textContent = row.label;
  form.prompt.placeholder = row.hint;
  form.steps.min = row.least || 1;
  const own = served[row.endpoint()];
  if (own && !touched) form.steps.value = own.steps;
  $("about").textContent = row.about + (own === null ? " No model that is loaded can do it." : "");
  message.textContent = "";
  margins();
  steps();
}

function margins() {
  const told = Object.fromEntries(["left", "right", "top", "bottom"].map((side) => [side, Math.min(2048, Math.max(0, Number(form[side].value) || 0))]));
  source.mode(mode === "fill", mode === "expand" ? told : null);
}

function settings() {
  const told = { mode, prompt: form.prompt.value.trim() };
  for (const name of SHOWN[mode]) told[name] = name === "raw" ? form.raw.checked : form[name].value;
  told.loras = [...document.querySelectorAll("#loras input[type=range]")].filter((input) => Number(input.value))
    .map((input) => ({ name: input.dataset.name, scale: Number(input.value) }));
  if (MODES[mode].source) told.source = source.origin;
  return told;
}

function bodyOf(told, seed) {
  const body = { prompt: told.prompt, seed, output_format: "png" };
  if (told.loras.length) body.loras = told.loras;
  if (told.steps) body.steps = Number(told.steps);
  if (told.guidance) body.guidance = Number(told.guidance);
  if (told.mode === "draw") [body.width, body.height] = told.size.split("x").map(Number);
  if (told.mode === "ultra") Object.assign(body, { aspect_ratio: told.aspect, raw: told.raw });
  if (told.mode === "edit") body.input_image = source.data();
  if (told.mode === "fill") Object.assign(body, { image: source.data(), mask: source.white() });
  if (told.mode === "expand") Object.assign(body, { image: source.data() }, Object.fromEntries(["left", "right", "top", "bottom"].map((side) => [side, Number(told[side]) || 0])));
  if (told.mode === "follow") body[told.follow === "canny" ? "control_image" : "preprocessed_image"] = source.data();
  return body;
}

function missing(told) {
  if (MODES[mode].source && !source.there) return "First give a picture: drop one above.";
  if (mode === "fill" && !source.masked) return "Paint over what is to be drawn anew.";
  if (!told.prompt && MODES[mode].words !== false) return "Say what is to be seen.";
  return "";
}

async function draw() {
  if (going.length) return;
  const told = settings(), trouble = missing(told);
  message.textContent = trouble;
  if (trouble) return;
  const count = Math.min(9, Math.max(1, Number(form.count.value) || 1));
  const first = form.seed.value.trim() === "" ? Math.floor(Math.random() * SEEDS) : Number(form.seed.value);
  going = Array.from({ length: count }, () => ({ progress: 0, id: null }));
  busy(true);
  const images = cells(count);
  const done = await Promise.allSettled(going.map((one, n) => drawOne(one, images[n], told, first + n)));
  const failed = done.find((one) => one.status === "rejected");
  if (failed) message.textContent = failed.reason.message;
  going = [];
  busy(false);
  refresh();
}

async function drawOne(one, image, told, seed) {
  const task = await post(MODES[told.mode].endpoint(), bodyOf(told, seed));
  one.id = task.id;
  const ready = await follow(task.id, (state) => {
    one.progress = state.progress || 0;
    $("progress").value = going.reduce((sum, each) => sum + each.progress, 0) / Math.max(1, going.length);
    if (state.preview) { image.src = state.preview.sample; image.classList.add("rough"); image.hidden = false; }
  });
  one.progress = 1;
  const entry = { ...told, id: task.id, seed: String(ready.result.seed), seconds: ready.result.duration, model: ready.details.model, drawn: ready.details.drawn_at, notes: ready.details.notes };
  remember(entry);
  show(entry, ready.result.sample, image);
}

function cells(count) {
  const images = Array.from({ length: count }, () => Object.assign(new Image(), { hidden: true, alt: "" }));
  frame.classList.toggle("many", count > 1);
  frame.style.setProperty("--across", String(Math.ceil(Math.sqrt(count))));
  frame.replaceChildren(...images);
  $("actions").hidden = $("settings").hidden = true;
  $("caption").textContent = "";
  images[0].id = "picture";
  return images;
}

// Put a finished picture into the frame, and its settings below.
function show(entry, link, image) {
  image ||= cells(1)[0];
  image.classList.remove("rough");
  image.src = link;
  image.alt = entry.prompt || MODES[entry.mode].title;
  image.hidden = false;
  const select = () => {
    current = { entry, link };
    $("caption").textContent = `${entry.prompt} — seed ${entry.seed}${entry.seconds ? `, ${entry.seconds.toFixed(1)} s` : ""}`;
    $("save").href = link;
    $("save").download = `fluxone-${entry.seed}.png`;
    table($("settings"), { ...entry, mode: MODES[entry.mode].title });
    $("actions").hidden = $("settings").hidden = false;
  };
  image.onclick = select;
  select();
}

function busy(now) {
  $("go").disabled = now;
  $("cancel").disabled = !now;
  $("progress").hidden = !now;
  $("progress").value = 0;
}

async function use(name) {
  const blob = await fetch(current.link).then((answer) => answer.ok ? answer.blob() : null).catch(() => null);
  if (!blob) { message.textContent = "That picture's link has expired: choose it again below."; return; }
  const id = current.entry.id;
  setMode(name);
  await source.take(blob, id);
  form.prompt.value = "";
  form.prompt.focus();
}

async function again() {
  const entry = current.entry;
  setMode(entry.mode);
  for (const name of SETTINGS) if (entry[name] !== undefined) form[name].value = entry[name];
  form.raw.checked = Boolean(entry.raw);
  form.seed.value = entry.seed;
  for (const input of document.querySelectorAll("#loras input[type=range]")) {
    input.value = (entry.loras || []).find((lora) => lora.name === input.dataset.name)?.scale || 0;
    input.dispatchEvent(new Event("input"));
  }
  margins();
  steps();
  if (!MODES[entry.mode].source || source.origin === entry.source && source.there) return;
  source.remove();
  const task = entry.source ? await result(entry.source).catch(() => null) : null;
  if (task?.result) await source.take(await fetch(task.result.sample).then((answer) => answer.blob()), entry.source);
  else message.textContent = "The picture that it was made from is not kept here: give it again.";
}

// While live is on, every pause in typing draws anew, with the same seed; what is not needed any more is given up.
function live() {
  clearTimeout(liveTimer);
  if (!$("live").checked || mode !== "draw" || !form.prompt.value.trim()) return;
  liveTimer = setTimeout(drawLive, PAUSE);
}

async function drawLive() {
  const run = ++liveRun, told = settings();
  const quick = served["flux-schnell"] && served["flux-schnell"].steps <= QUICK;
  liveSeed ??= Math.floor(Math.random() * SEEDS);
  const body = { ...bodyOf({ ...told, guidance: "" }, form.seed.value === "" ? liveSeed : Number(form.seed.value)), steps: quick ? served["flux-schnell"].steps : FEW };
  const old = drawLive.id;
  if (old) cancel(old);
  try {
    const task = await post(quick ? "flux-schnell" : "flux-dev", body);
    drawLive.id = task.id;
    if (run !== liveRun) { cancel(task.id); return; }
    const ready = await follow(task.id, () => {});
    if (run !== liveRun) return;
    drawLive.id = null;
    const image = frame.querySelector("img:only-child") || undefined;
    show({ ...told, steps: String(body.steps), id: task.id, seed: String(ready.result.seed), seconds: ready.result.duration, model: ready.details.model, drawn: ready.details.drawn_at, notes: ready.details.notes }, ready.result.sample, image);
    message.textContent = "";
  } catch (error) {
    if (run === liveRun) message.textContent = error.message;
  }
}

const steps = () => { $("steps-shown").textContent = form.steps.value; };
const refresh = () => gallery($("gallery"), $("clear"), (entry, link) => { show(entry, link); $("stage").scrollIntoView({ block: "nearest" }); });
const stop = () => { for (const one of going) if (one.id) cancel(one.id); };

async function learn() {
  const told = await call("/v1/endpoints");
  served = told.endpoints;
  for (const button of $("modes").querySelectorAll("[data-mode]")) {
    const row = MODES[button.dataset.mode];
    const able = button.dataset.mode === "follow" ? ["canny", "depth", "pose"].some((kind) => served["flux-pro-1.0-" + kind]) : served[row.endpoint()];
    button.classList.toggle("unserved", !able);
  }
  $("loras").replaceChildren(...told.loras.map((name) => {
    const label = document.createElement("label"), shown = document.createElement("output");
    const input = Object.assign(document.createElement("input"), { type: "range", min: -1, max: 2, step: 0.05, value: 0 });
    input.dataset.name = name;
    input.addEventListener("input", () => { shown.textContent = Number(input.value) ? input.value : "off"; live(); });
    shown.textContent = "off";
    label.append(`LoRA ${name} `, shown, input);
    return label;
  }));
  setMode(mode);
  document.body.dataset.ready = "yes";
}

async function ready() {
  for (let known = false; ;) {
    const state = await fetch("/readyz").then((answer) => answer.json()).catch(() => null);
    $("server").textContent = !state ? "the server does not answer" : state.trouble ? state.trouble
      : state.ready ? state.models.join(", ") + (state.waiting ? ` · ${state.waiting} waiting` : "") : "loading the models …";
    if (state && state.ready && !known) known = await learn().then(() => true, (error) => { message.textContent = error.message; return error.status === 401; });
    await sleep(state && state.ready ? 5000 : 500);
  }
}

function theme(next) {
  const now = next ?? localStorage.getItem("fluxone.theme") ?? "";
  if (now) document.documentElement.dataset.theme = now; else delete document.documentElement.dataset.theme;
  localStorage.setItem("fluxone.theme", now);
}

for (const [name, row] of Object.entries(MODES)) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: row.title, role: "tab" });
  button.dataset.mode = name;
  button.addEventListener("click", () => { touched = false; setMode(name); });
  $("modes").append(button);
}
form.addEventListener("submit", (event) => { event.preventDefault(); draw(); });
form.steps.addEventListener("input", () => { touched = true; steps(); });
form.prompt.addEventListener("input", live);
form.key.value = sessionStorage.getItem("fluxone.key") || "";
key.value = form.key.value;
form.key.addEventListener("change", () => { key.value = form.key.value; sessionStorage.setItem("fluxone.key", key.value); learn().then(refresh, (error) => { message.textContent = error.message; }); });
for (const side of ["left", "right", "top", "bottom"]) form[side].addEventListener("input", margins);
$("live").addEventListener("change", live);
$("cancel").addEventListener("click", stop);
$("remove").addEventListener("click", () => source.remove());
$("unmask").addEventListener("click", () => source.unmask());
$("erase").addEventListener("click", () => { source.erasing = !source.erasing; $("erase").setAttribute("aria-pressed", String(source.erasing)); });
$("clear").addEventListener("click", () => { keep([]); refresh(); });
$("again").addEventListener("click", again);
for (const button of document.querySelectorAll("[data-use]")) button.addEventListener("click", () => use(button.dataset.use));
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  theme(dark ? "light" : "dark");
});
document.addEventListener("paste", (event) => {
  const item = [...event.clipboardData.items].find((one) => one.type.startsWith("image/"));
  if (item) { if (!MODES[mode].source) setMode("edit"); source.take(item.getAsFile()); }
});
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => {
  event.preventDefault();
  if (name === "drop" && !$("drop").contains(event.target) && event.dataTransfer.files[0]) {
    if (!MODES[mode].source) setMode("edit");
    source.take(event.dataTransfer.files[0]);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();   // else it would also press whatever button has the focus
    form.requestSubmit();
  }
  if (event.key === "Escape") stop();
  const chosen = event.altKey && Object.keys(MODES)[Number(event.code.replace("Digit", "")) - 1];
  if (chosen) { event.preventDefault(); setMode(chosen); }
});
theme();
setMode("draw");
if (remembered().length) refresh();
ready();
