// Puts the parts of the page together.

import { Chat } from "./chat.js";
import { headers } from "./events.js";
import { redraw, watchExperts } from "./experts.js";

const byId = (id) => document.getElementById(id);
const form = byId("settings");
const KEPT = "edgemoe-settings";

function settings() {
  const out = {};
  for (const [name, text] of new FormData(form)) {
    if (text === "") continue;
    out[name] = form.elements[name].type === "number" ? Number(text) : text;
  }
  return out;
}

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    for (const [name, value] of Object.entries(kept)) if (form.elements[name]) form.elements[name].value = value;
  } catch {
    localStorage.removeItem(KEPT);
  }
}

async function listModels() {
  const select = byId("model");
  try {
    const response = await fetch("/v1/models", { headers: headers(settings().api_key) });
    const { data } = await response.json();
    select.replaceChildren(...data.map(({ id }) => new Option(id, id)));
  } catch {
    select.replaceChildren(new Option("no model: is the API key right?", ""));
  }
}

restore();
const chat = new Chat(settings);
const question = byId("question");

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || chat.abort) return;
  question.value = "";
  chat.ask(text);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") chat.stop();
});
byId("stop").addEventListener("click", () => {
  chat.stop();
  question.focus();
});
byId("retry").addEventListener("click", () => chat.retry());
byId("new").addEventListener("click", () => {
  chat.clear();
  question.focus();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => {
  const kept = settings();
  delete kept.api_key; // stays in the page
  localStorage.setItem(KEPT, JSON.stringify(kept));
  if (event.target.name === "api_key") listModels();
});
window.addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

listModels();
watchExperts(() => settings().api_key);
question.focus();
