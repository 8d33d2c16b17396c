// The live map: what every expert did at the newest token, and what memory is used.

import { events, headers } from "./events.js";

const byId = (id) => document.getElementById(id);
const STATES = ["absent", "resident", "hit", "ahead", "missed"];
const RETRY_MS = 3000;
let last = null;

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; bytes >= 1024 && at < 4; at += 1) bytes /= 1024;
  return `${bytes.toFixed(at && bytes < 100 ? 1 : 0)} ${units[at]}`;
}

export async function watchExperts(key) {
  for (;;) {
    try {
      for await (const frame of events("/experts", { headers: headers(key()) })) show(frame);
    } catch {
      byId("memory-text").textContent = "no connection to the server";
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function show(frame) {
  const { stats } = frame;
  if (stats) {
    const share = stats.resident_bytes / stats.budget_bytes;
    byId("memory").value = share;
    byId("memory-text").textContent = `${size(stats.resident_bytes)} of ${size(stats.budget_bytes)}`;
    const uses = stats.expert_hits + stats.expert_misses;
    byId("hits").textContent = uses ? `${((100 * stats.expert_hits) / uses).toFixed(1)} %` : "–";
    byId("read").textContent = size(stats.bytes_read);
    byId("wasted").textContent = size(stats.wasted_bytes);
    byId("waited").textContent = stats.waited_s < 1 ? `${Math.round(1000 * stats.waited_s)} ms` : `${stats.waited_s.toFixed(1)} s`;
  }
  if (frame.layers) {
    last = frame;
    draw();
    describe();
  }
}

function draw() {
  const canvas = byId("map");
  const width = canvas.parentElement.clientWidth - 12;
  const experts = Math.max(...last.layers.map((layer) => layer.states.length));
  if (width <= 0 || !experts) return;
  const scale = window.devicePixelRatio || 1;
  const cell = Math.max(2, Math.min(14, width / experts));
  const rows = last.layers.length;
  canvas.width = Math.round(cell * experts * scale);
  canvas.height = Math.round(cell * rows * scale);
  canvas.style.width = `${cell * experts}px`;
  const style = getComputedStyle(document.documentElement);
  const colours = STATES.map((name) => style.getPropertyValue(`--${name}`).trim());
  const pen = canvas.getContext("2d");
  const gap = cell > 5 ? 1 : 0.4;
  pen.scale(scale, scale);
  last.layers.forEach(({ states }, row) => {
    for (let column = 0; column < states.length; column += 1) {
      pen.fillStyle = colours[states[column]];
      pen.fillRect(column * cell, row * cell, cell - gap, cell - gap);
    }
  });
}

function describe() {
  const count = (states, wanted) => [...states].filter((s) => wanted.includes(s)).length;
  let used = 0;
  let missed = 0;
  const rows = last.layers.map(({ layer, states }) => {
    const numbers = [layer, count(states, "123"), count(states, "234"), count(states, "4")];
    used += numbers[2];
    missed += numbers[3];
    const row = document.createElement("tr");
    for (const number of numbers) row.insertCell().textContent = number;
    return row;
  });
  byId("words").replaceChildren(...rows);
  byId("map").setAttribute(
    "aria-label",
    `Map of experts: ${rows.length} layers; at the newest token ${used} experts were used, ${missed} of them waited for`,
  );
}

export function redraw() {
  if (last) draw();
}
