"use strict";
// One page without a library: a chat, the load from /metrics, and the plan. It asks this server alone.

const byId = (id) => document.getElementById(id);
const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};

// ---- views -------------------------------------------------------------------------------------------------------
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    for (const each of document.querySelectorAll("nav button")) {
      each.classList.toggle("on", each === button);
      if (each === button) each.setAttribute("aria-current", "page"); else each.removeAttribute("aria-current");
    }
    for (const view of document.querySelectorAll(".view")) view.classList.toggle("on", view.id === button.dataset.view);
    if (button.dataset.view === "load") drawAll();
  });
}

// ---- chat --------------------------------------------------------------------------------------------------------
let model = "";
let history = [];
let running = null;

function show(role) {
  const box = make("div", undefined, `message ${role}`);
  const thought = make("details");
  thought.append(make("summary", "thinking"), make("div"));
  const answer = make("div", undefined, "answer");
  if (role === "assistant") box.append(thought);
  thought.hidden = true;
  box.append(answer);
  byId("messages").append(box);
  return { box, thought, answer };
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

async function ask(text) {
  history.push({ role: "user", content: text });
  show("user").answer.textContent = text;
  const shown = show("assistant");
  const began = performance.now();
  let first = 0, tokens = 0, content = "", thought = "";
  running = new AbortController();
  byId("send").textContent = "Stop";
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", headers: { "Content-Type": "application/json" }, signal: running.signal,
      body: JSON.stringify({
        model, messages: history, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true },
        temperature: Number(byId("temperature").value), max_tokens: Number(byId("most").value),
        chat_template_kwargs: { enable_thinking: byId("thinking").checked },
      }),
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const delta = event.choices[0]?.delta ?? {};
      const { scrollTop, clientHeight, scrollHeight } = byId("messages");
      const follows = scrollTop + clientHeight > scrollHeight - 60;
      first = first || performance.now();
      content += delta.content ?? "";
      thought += delta.reasoning_content ?? "";
      tokens = event.usage?.completion_tokens ?? tokens;
      shown.answer.textContent = content;
      shown.thought.lastChild.textContent = thought;
      shown.thought.hidden = !thought;
      // Whoever has scrolled up to read stays there.
      if (follows) byId("messages").scrollTop = byId("messages").scrollHeight;
      const seconds = (performance.now() - first) / 1000;
      byId("speed").textContent = `first after ${Math.round(first - began)} ms` +
        (tokens > 1 && seconds > 0 ? `, ${((tokens - 1) / seconds).toFixed(1)} tokens/s` : "");
    }
    history.push({ role: "assistant", content });
  } catch (error) {
    if (error.name !== "AbortError") {
      shown.box.classList.add("failed");
      shown.answer.textContent = `${content}\n${error.message}`.trim();
    } else history.push({ role: "assistant", content });
  } finally {
    running = null;
    byId("send").textContent = "Send";
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) { running.abort(); return; }
  const text = byId("text").value.trim();
  if (text) { byId("text").value = ""; ask(text); }
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); byId("ask").requestSubmit(); }
});
addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
byId("clear").addEventListener("click", () => {
  running?.abort();
  history = [];
  byId("messages").replaceChildren();
  byId("speed").textContent = "";
  byId("text").focus();
});

// ---- load --------------------------------------------------------------------------------------------------------
const KEPT = 180;
const SERIES = [
  { key: "output", title: "output tokens/s", unit: "" },
  { key: "prompt", title: "prompt tokens/s", unit: "" },
  { key: "ttft", title: "time to first token", unit: " ms" },
  { key: "itl", title: "between tokens", unit: " ms" },
  { key: "cache", title: "KV cache in use", unit: " %", most: 100 },
  { key: "queue", title: "requests waiting", unit: "" },
];
const points = Object.fromEntries(SERIES.map(({ key }) => [key, []]));
let before = null;

function parse(text) {
  const found = {};
  for (const line of text.split("\n")) {
    if (!line || line[0] === "#") continue;
    const at = line.lastIndexOf(" ");
    const name = line.slice(0, at).replace(/\{.*\}/, "");
    found[name] = (found[name] ?? 0) + Number(line.slice(at + 1));
  }
  return found;
}

const rate = (now, name, seconds) => (before ? Math.max(0, (now[name] ?? 0) - (before.values[name] ?? 0)) / seconds : 0);
const mean = (now, name) => {
  if (!before) return null;
  const count = (now[`${name}_count`] ?? 0) - (before.values[`${name}_count`] ?? 0);
  return count > 0 ? 1000 * ((now[`${name}_sum`] ?? 0) - (before.values[`${name}_sum`] ?? 0)) / count : null;
};

async function poll() {
  try {
    const response = await fetch("metrics", { cache: "no-store" });
    if (response.ok) {
      const found = parse(await response.text());
      byId("off").hidden = "vllm:num_requests_running" in found;
      if (byId("off").hidden) take(found, performance.now() / 1000);
    }
    const health = await fetch("health", { cache: "no-store" });
    byId("health").textContent = health.ok ? "serving" : (await health.json()).error.message;
    byId("health").className = `state ${health.ok ? "good" : "bad"}`;
  } catch {
    byId("health").textContent = "no answer from the server";
    byId("health").className = "state bad";
  }
}

function take(now, time) {
  const seconds = before ? time - before.time : 1;
  const values = {
    output: rate(now, "vllm:generation_tokens_total", seconds),
    prompt: rate(now, "vllm:prompt_tokens_total", seconds),
    ttft: mean(now, "vllm:time_to_first_token_seconds"),
    itl: mean(now, "vllm:time_per_output_token_seconds"),
    cache: 100 * (now["vllm:gpu_cache_usage_perc"] ?? 0),
    queue: now["engine:queued_requests"] ?? now["vllm:num_requests_waiting"] ?? 0,
  };
  for (const { key } of SERIES) {
    points[key].push(values[key]);
    if (points[key].length > KEPT) points[key].shift();
  }
  before = { values: now, time };
  tiles({
    running: now["vllm:num_requests_running"] ?? 0, waiting: values.queue,
    "KV cache": `${values.cache.toFixed(1)} %`, "output tokens": Math.round(now["vllm:generation_tokens_total"] ?? 0).toLocaleString(),
    "requests done": Math.round(now["vllm:request_success_total"] ?? 0).toLocaleString(), preemptions: now["vllm:num_preemptions_total"] ?? 0,
    "engine restarts": now["engine:restarts_total"] ?? 0,
  });
  if (byId("load").classList.contains("on")) drawAll();
}

function tiles(values) {
  byId("tiles").replaceChildren(...Object.entries(values).map(([name, value]) => {
    const tile = make("div", undefined, "tile");
    tile.append(make("b", String(value)), make("span", name));
    return tile;
  }));
}

const canvases = {};
for (const { key, title } of SERIES) {
  const figure = make("figure");
  const caption = make("figcaption");
  caption.append(make("span", title), make("b"));
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  figure.append(caption, canvas);
  byId("plots").append(figure);
  canvases[key] = { canvas, caption };
}

function drawAll() { for (const series of SERIES) draw(series); }

function draw({ key, unit, most }) {
  const { canvas, caption } = canvases[key];
  const known = points[key].filter((value) => value !== null);
  const last = known.at(-1);
  caption.lastChild.textContent = last === undefined ? "–" : (last >= 100 ? Math.round(last) : last.toFixed(1)) + unit;
  canvas.setAttribute("aria-label", `${caption.firstChild.textContent}: ${last === undefined ? "no value yet" : caption.lastChild.textContent}`);
  const scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const top = most ?? Math.max(1, ...known) * 1.15;
  pen.scale(scale, scale);
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.fillStyle = style.getPropertyValue("--soft");
  pen.font = "11px system-ui";
  for (const share of [0, 0.5, 1]) {
    const y = height - 4 - share * (height - 18);
    pen.beginPath(); pen.moveTo(0, y); pen.lineTo(width, y); pen.stroke();
    pen.fillText((share === 0 ? 0 : share * top >= 10 ? Math.round(share * top) : (share * top).toFixed(1)) + unit, 2, y - 3);
  }
  pen.strokeStyle = style.getPropertyValue("--accent");
  pen.lineWidth = 1.6;
  pen.beginPath();
  let open = false;
  points[key].forEach((value, index) => {
    if (value === null) { open = false; return; }
    const x = width - (points[key].length - 1 - index) * (width / (KEPT - 1)), y = height - 4 - Math.min(1, value / top) * (height - 18);
    if (open) pen.lineTo(x, y); else { pen.moveTo(x, y); pen.lineTo(x + 1, y); }
    open = true;
  });
  pen.stroke();
}
addEventListener("resize", drawAll);

// ---- plan --------------------------------------------------------------------------------------------------------
const bytes = (count) => {
  if (count === undefined) return undefined;
  const step = Math.min(4, Math.floor(Math.log2(Math.max(1, count)) / 10));
  return `${(count / 1024 ** step).toFixed(step ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][step]}`;
};
const count = (value) => value?.toLocaleString("en");

function facts(plan) {
  const { model = {}, device = {}, weights = {}, kv_cache: cache = {}, scheduler = {} } = plan;
  const rows = {
    architecture: model.architecture, task: model.task, "computes in": model.dtype, quantization: plan.quantization?.method ?? "none",
    layers: model.layers, vocabulary: count(model.vocab_size), context: count(model.max_model_len), weights: bytes(weights.bytes),
    device: device.description ?? device.name, "KV cache": bytes(cache.bytes), "cached tokens": count(cache.tokens), "KV entries in": cache.dtype,
    "sequences at once": count(scheduler.max_num_seqs), "tokens per step": count(scheduler.max_num_batched_tokens),
  };
  byId("facts").replaceChildren(...Object.entries(rows).filter(([, value]) => value !== undefined).map(([name, value]) => {
    const row = make("div");
    row.append(make("dt", name), make("dd", String(value)));
    return row;
  }));
  byId("warnings").replaceChildren(...(plan.warnings ?? []).map((text) => make("p", text)));
}

async function start() {
  const models = await (await fetch("v1/models")).json();
  model = models.data?.[0]?.id ?? "";
  byId("model").textContent = model;
  const plan = await (await fetch("ui/plan")).json();
  facts(plan);
  byId("plugins").replaceChildren(...(plan.plugins ?? []).map((each) => {
    const row = make("tr");
    const asked = each.asked && each.asked !== each.name ? `${each.name} (asked: ${each.asked})` : each.name;
    const cells = [each.kind, asked, each.reason, each.distribution, (each.others ?? []).join(", ")];
    row.append(...cells.map((text) => make("td", text)));
    return row;
  }));
}

start().catch((error) => { byId("model").textContent = `the plan cannot be read: ${error.message}`; });
drawAll();
poll();
setInterval(poll, 1000);
