// The conversation: what was said, and the answer being written.

import { events, headers } from "./events.js";
import { render } from "./markdown.js";

const byId = (id) => document.getElementById(id);

export class Chat {
  constructor(settings) {
    this.settings = settings;
    this.messages = [];
    this.abort = null;
    this.log = byId("log");
  }

  clear() {
    this.stop();
    this.messages = [];
    this.log.replaceChildren(byId("welcome") ?? this.welcome);
    this.#buttons();
  }

  stop() {
    this.abort?.abort();
  }

  async ask(question) {
    this.welcome ??= byId("welcome");
    this.welcome.remove();
    if (this.messages.at(-1)?.role === "user") this.messages.pop(); // its answer failed; some templates want turns
    this.messages.push({ role: "user", content: question });
    this.#article("You", "mine").body.textContent = question;
    await this.#answer();
  }

  async retry() {
    if (this.abort || !this.messages.length) return;
    if (this.messages.at(-1).role === "assistant") this.messages.pop();
    if (!this.log.lastElementChild.classList.contains("mine")) this.log.lastElementChild.remove();
    await this.#answer();
  }

  #article(who, name) {
    const article = document.createElement("article");
    article.className = name;
    const title = document.createElement("h3");
    title.className = "who";
    title.textContent = who;
    const body = document.createElement("div");
    body.className = "body";
    article.append(title, body);
    this.log.append(article);
    this.log.scrollTop = this.log.scrollHeight;
    return { article, body };
  }

  #buttons() {
    const isBusy = this.abort !== null;
    const [goes, comes] = isBusy ? ["send", "stop"] : ["stop", "send"];
    const hadFocus = document.activeElement === byId(goes);
    byId(comes).hidden = false;
    byId(goes).hidden = true;
    if (hadFocus) byId(comes).focus();
    byId("retry").disabled = isBusy || !this.messages.length;
  }

  async #answer() {
    const shown = this.#article(byId("model").value, "theirs");
    const answer = { text: "", thought: "", timings: null, reason: null, reading: null, error: null };
    this.abort = new AbortController();
    this.#buttons();
    byId("status").textContent = "The answer is being written.";
    let frame = 0; // what comes between two frames is drawn at once
    try {
      for await (const chunk of events("/v1/chat/completions", this.#request())) {
        this.#take(chunk, answer);
        frame ||= requestAnimationFrame(() => {
          frame = 0;
          this.#show(shown, answer);
        });
      }
    } catch (error) {
      if (error.name === "AbortError") answer.reason = "stopped";
      else answer.error = `The answer failed: ${error.message}`;
    }
    cancelAnimationFrame(frame);
    this.abort = null;
    this.#finish(shown, answer);
    this.#buttons();
  }

  #request() {
    const { system, api_key: key, ...draw } = this.settings();
    const messages = system ? [{ role: "system", content: system }, ...this.messages] : this.messages;
    const body = { model: byId("model").value, messages, stream: true, return_progress: true, ...draw };
    return { method: "POST", headers: headers(key), body: JSON.stringify(body), signal: this.abort.signal };
  }

  #take(chunk, answer) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.prompt_progress) answer.reading = chunk.prompt_progress;
    const choice = chunk.choices[0];
    if (!choice) return;
    answer.text += choice.delta.content ?? "";
    answer.thought += choice.delta.reasoning_content ?? "";
    answer.reason = choice.finish_reason ?? answer.reason;
    answer.timings = chunk.timings ?? answer.timings;
  }

  #show({ article, body }, answer) {
    this.#following(() => this.#draw(article, body, answer));
  }

  #following(change) {
    const follows = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
    change();
    if (follows) this.log.scrollTop = this.log.scrollHeight;
  }

  #draw(article, body, answer) {
    if (answer.thought) {
      let box = article.querySelector("details");
      if (!box) {
        box = document.createElement("details");
        box.innerHTML = "<summary>Thoughts</summary><div></div>";
        body.before(box);
      }
      box.lastElementChild.textContent = answer.thought;
    }
    if (answer.text) render(answer.text, body);
    else if (answer.reading && answer.reading.processed < answer.reading.total) {
      body.textContent = `Reading the prompt: ${answer.reading.processed} of ${answer.reading.total} tokens`;
    } else body.textContent = "";
    (body.lastElementChild ?? body).classList.add("writing");
  }

  #finish({ article, body }, answer) {
    this.#following(() => {
      this.#draw(article, body, answer);
      for (const node of [body, ...body.querySelectorAll(".writing")]) node.classList.remove("writing");
      if (!answer.text) body.textContent = answer.thought || answer.error ? "" : EMPTY[answer.reason] ?? "(nothing)";
      if (answer.error) article.append(line("error", answer.error));
      else this.messages.push({ role: "assistant", content: answer.text });
      const cost = costs(answer);
      if (cost) article.append(line("cost", cost));
    });
    byId("status").textContent = answer.error ?? `The answer is complete. ${answer.text.slice(0, 2000)}`;
  }
}

const EMPTY = { stopped: "(stopped)" };

function line(name, text) {
  const node = document.createElement("p");
  node.className = name;
  node.textContent = text;
  return node;
}

function costs({ timings, reason }) {
  const parts = [];
  if (timings) {
    parts.push(`${timings.predicted_n} tokens`);
    if (timings.predicted_per_second) parts.push(`${timings.predicted_per_second.toFixed(1)} tokens/s`);
    parts.push(`first after ${(timings.prompt_ms / 1000).toFixed(2)} s`);
  }
  if (reason === "length") parts.push("cut at the longest answer");
  if (reason === "stopped") parts.push("stopped");
  return parts.join(" · ");
}
