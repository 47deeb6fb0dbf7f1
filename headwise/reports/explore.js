
// The live part: what is clicked goes to the server that gave this page, what it answers is shown. `data`, `cells`, `card`,
// `paint`, `show` and `element` are those of the report's page, which comes before this in one script.
const live = data.live;
const at = (id) => document.getElementById(id);
const state = { edits: { ...live.edits }, query: null, right: null };
let running = null;

const clean = () => Object.fromEntries(Object.entries(state.edits).filter(([, edit]) => edit !== "keep"));
const edit = (head) => state.edits[head] ?? "keep";
const scale = (text) => (text === "keep" ? 1 : text === "zero" ? 0 : Number(/^scale\((.*)\)$/.exec(text)?.[1] ?? 1));
const scaled = (number) => (number === 1 ? "keep" : number === 0 ? "zero" : `scale(${number})`);
const turn = (head) => { set(head, edit(head) === "keep" ? at("operator").value : "keep"); show(head, false); };

function mark() {
  data.edited = clean();
  paint();
  for (const cell of cells) {
    const now = edit(cell.dataset.head);
    cell.classList.toggle("off", now !== "keep" && scale(now) === 0);
    cell.classList.toggle("edited", now !== "keep");
  }
}

function set(head, now) {
  state.edits[head] = now;
  mark();
  ask();
}

// The card of a head gets a switch and a scale at its top.
function controls(head) {
  const box = element("div", "", { class: "scale" });
  const button = element("button", edit(head) === "keep" ? "Switch off" : "Switch on", { type: "button" });
  const label = element("label", "scale ");
  const slide = element("input", "", { type: "range", min: 0, max: live.widest, step: 0.05, "aria-label": `scale of ${head}` });
  slide.value = scale(edit(head));
  const shown = element("output", Number(slide.value).toFixed(2));
  button.addEventListener("click", () => turn(head));
  slide.addEventListener("input", () => { shown.textContent = Number(slide.value).toFixed(2); button.textContent = Number(slide.value) === 1 ? "Switch off" : "Switch on"; set(head, scaled(Number(slide.value))); });
  label.append(slide);
  box.append(button, label, shown);
  card.querySelector("h3").after(box);
}

function picture(number, alt) {
  const made = element("img", "", { src: `picture/${number}`, alt: alt ?? live.names[number], title: live.names[number], loading: "lazy", width: 56, height: 56 });
  const button = element("button", "", { type: "button", "aria-label": `what is near to ${live.names[number]}` });
  button.addEventListener("click", () => find({ image: number }, live.names[number], null));
  button.append(made);
  if (number === state.right) button.className = "right";
  return button;
}

function find(query, words, right) {
  state.query = query;
  state.right = right;
  at("asked").textContent = words;
  ask();
}

async function ask() {
  if (running) running.abort();
  const mine = (running = new AbortController());
  at("status").textContent = "Computing …";
  try {
    const body = JSON.stringify({ edits: clean(), query: state.query });
    const answer = await fetch("look", { method: "POST", headers: { "Content-Type": "application/json" }, body, signal: mine.signal });
    if (!answer.ok) throw new Error((await answer.json()).error);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const line of parts) if (mine === running) answered(JSON.parse(line));
    }
  } catch (error) {
    if (error.name !== "AbortError") at("status").textContent = error.message === "Failed to fetch" ? "The server has ended: start headwise explore again." : error.message;
  }
}

function answered(found) {
  if (found.error) { at("status").textContent = found.error; return; }
  const whole = found.done === found.total;
  at("status").textContent = found.estimated ? `${found.mask}: estimated, computing …` : whole ? `${found.mask}: all ${found.total} images.` : `${found.mask}: ${found.done} of ${found.total} images so far …`;
  const main = found.metrics.find((one) => one.name === found.fitness) || found.metrics[0];
  at("verdict").textContent = `${live.metrics[main.name] || main.name} ${points(main.before).replace("+", "")} → ${found.estimated ? "≈ " : ""}${points(main.after).replace("+", "")} % (${points(main.after - main.before)} points) on ${found.done} images`;
  const rows = [main, ...found.metrics.filter((one) => one !== main)];
  at("metrics").replaceChildren(...rows.map((one) => {
    const line = element("tr", "");
    if (one === main) line.className = "strong";
    line.append(...[live.metrics[one.name] || one.name, points(one.before).replace("+", ""), points(one.after).replace("+", ""), points(one.after - one.before)].map((text) => element("td", text)));
    return line;
  }));
  at("counts").textContent = `${found.gained} gained, ${found.lost} lost; rank of what a query should find, all heads on → now.`;
  for (const [kind, sign] of [["lost", "down"], ["gained", "up"]]) {
    at(kind).replaceChildren(...found[`${kind}_queries`].map((one) => {
      const item = element("li", "");
      const words = element("button", one.text || one.image, { type: "button", dir: "auto" });
      words.addEventListener("click", () => find(one.text && one.task === "image_retrieval" ? { text: one.text } : { image: one.picture }, one.text || one.image, one.picture));
      if (one.picture !== null) item.append(picture(one.picture));
      item.append(words, " ", element("span", `${one.before} → ${one.after}`, { class: sign }));
      return item;
    }));
  }
  const near = found.query;
  for (const side of ["before", "after"]) {
    at(`near-${side}`).replaceChildren(...(near ? near[side].map((number) => picture(number)) : []));
    at(`texts-${side}`).replaceChildren(...((near && near[`${side}_texts`]) || []).map((text) => element("li", text, { dir: "auto" })));
  }
  at("distance").textContent = `Embeddings moved by ${found.moved.mean.toFixed(4)} on average (1 − cosine). Lines: from where an image was to where it is, in the plane of the two main axes of the unchanged embeddings.`;
  at("movers").replaceChildren(...(found.moved.mean > 1e-7 ? found.moved.most.map((number) => picture(number)) : []));
  plane(found.points);
}

function plane(after) {
  const canvas = at("plane");
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.body);
  const all = live.points;
  const span = (k) => { const own = all.filter((_, i) => i % 2 === k); return [Math.min(...own), Math.max(...own) - Math.min(...own) || 1]; };
  const [[x0, w], [y0, h]] = [span(0), span(1)];
  const place = (list, i) => [20 + (600 * (list[2 * i] - x0)) / w, 380 - (360 * (list[2 * i + 1] - y0)) / h];
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < after.length / 2; i++) {
    const [from, to] = [place(all, i), place(after, i)];
    context.strokeStyle = style.getPropertyValue("--harm");
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    context.fillStyle = style.getPropertyValue("--use");
    context.beginPath();
    context.arc(...to, 2, 0, 7);
    context.fill();
  }
}

async function save() {
  const answer = await fetch("save", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ edits: clean() }) }).catch(() => null);
  const found = answer ? await answer.json() : { error: "The server has ended." };
  at("saved").textContent = found.error || `Written to ${found.folder}`;
}

new MutationObserver(() => { if (!card.querySelector(".scale") && card.querySelector("dl")) controls(card.querySelector("h3").textContent); }).observe(card, { childList: true });
table.addEventListener("click", (event) => {
  const cell = event.target.closest("button");
  if (cell) turn(cell.dataset.head);
});
at("reset").addEventListener("click", () => { state.edits = {}; mark(); ask(); });
at("restore").addEventListener("click", () => { state.edits = { ...live.edits }; mark(); ask(); });
at("save").addEventListener("click", save);
at("ask").addEventListener("submit", (event) => { event.preventDefault(); const text = at("query").value.trim(); if (text) find({ text }, text, null); });
mark();
if (table.querySelector("[aria-pressed=true]")) show(table.querySelector("[aria-pressed=true]").dataset.head, false);
ask();
