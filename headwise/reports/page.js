// Head cards and the heat map's operators. The page is whole without this script: it only moves between its parts.
const data = JSON.parse(document.getElementById("data").textContent);
const table = document.getElementById("heads");
const card = document.getElementById("card");
const cells = table ? [...table.querySelectorAll("button")] : [];
let layer = 0;

const points = (x, digits = 2) => {
  if (x === null || x === undefined) return "—";
  const text = (100 * x).toFixed(digits).replace("-", "−");
  return Number(x) > 0 && !/^0\.?0*$/.test(text) ? "+" + text : text.replace(/^−(0\.?0*)$/, "$1");
};
const pvalue = (p) => (p === null || p === undefined ? "—" : p < 0.001 ? "< 0.001" : p.toFixed(3));

// Black or white, whichever has the higher contrast (WCAG 2: relative luminance) on a colour as browsers compute it.
function readable(colour) {
  const parts = colour.match(/[\d.]+/g).slice(0, 3).map(Number);
  const [r, g, b] = colour.startsWith("color(") ? parts : parts.map((x) => x / 255);
  const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const light = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  return (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000" : "#fff";
}

function paint() {
  const sweep = data.sweeps[layer] || { heads: {} };
  const most = sweep.scale || 1;
  for (const cell of cells) {
    const found = sweep.heads[cell.dataset.head];
    const share = found ? Math.max(-1, Math.min(1, found.value / most)) : 0;
    const colour = share > 0 ? "--harm" : "--use";
    cell.style.background = `color-mix(in srgb, var(${colour}) ${Math.round(85 * Math.abs(share))}%, var(--mid))`;
    cell.style.color = readable(getComputedStyle(cell).backgroundColor);
    cell.textContent = found ? (sweep.exact ? points(found.value, 1) : (found.value >= 0 ? "+" : "−") + Math.abs(found.value).toFixed(2)) : "";
    cell.classList.toggle("sure", Boolean(found && found.p !== null && found.p < 0.05));
    const kind = !found ? "not measured" : found.value > 0 ? "harmful" : found.value < 0 ? "useful" : "no effect";
    const edited = data.edited[cell.dataset.head] ? ", edited: " + data.edited[cell.dataset.head] : "";
    cell.setAttribute("aria-label", `${cell.dataset.head}: ${kind}, ${cell.textContent || "no value"}${edited}`);
  }
}

function row(list, name, value) {
  const dt = document.createElement("dt");
  const dd = document.createElement("dd");
  dt.textContent = name;
  dd.textContent = value;
  list.append(dt, dd);
}

function show(head, focus) {
  const cell = cells.find((one) => one.dataset.head === head);
  if (!cell) return;
  for (const one of cells) {
    one.setAttribute("aria-pressed", String(one === cell));
    one.tabIndex = one === cell ? 0 : -1;
  }
  if (focus) cell.focus();
  card.replaceChildren();
  const title = document.createElement("h3");
  title.textContent = head;
  const list = document.createElement("dl");
  if (data.edited[head]) row(list, "edit", data.edited[head]);
  for (const sweep of data.sweeps) {
    const found = sweep.heads[head];
    if (!found) continue;
    if (sweep.exact) {
      row(list, `alone, ${sweep.operator}`, `${points(found.value)} points` + (found.p === null ? "" : `, p ${pvalue(found.p)}`));
      if (found.loss !== null) row(list, "change of the loss", found.loss.toFixed(4).replace("-", "−"));
    } else row(list, `first order, ${sweep.operator}`, found.value.toFixed(4).replace("-", "−"));
  }
  card.append(title, list);
  for (const part of data.cards[head] || []) card.append(...section(part));
}

// A part of a card: a title, sentences, pictures with where the head looks in them.
function section(part) {
  const parts = [element("h4", part.title), ...(part.lines || []).map((line) => element("p", line, { dir: "auto" }))];
  if (part.pictures && part.pictures.length) {
    const strip = element("div", "", { class: "strip" });
    part.pictures.forEach((key, i) => {
      const known = data.pictures[key];
      strip.append(known ? element("img", "", { src: known, alt: key, title: key }) : element("span", "picture gone", { class: "blank", title: key }));
      const map = (part.maps || [])[i];
      if (map) strip.append(drawn(element("canvas", "", { role: "img", "data-map": map, "aria-label": "where it looks in " + key, title: "where it looks" })));
    });
    parts.push(strip);
  }
  return parts;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// One square a patch, the darker the more it is looked at.
function drawn(canvas) {
  const map = canvas.dataset.map;
  const side = Math.round(Math.sqrt(map.length));
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  [...map].forEach((shade, i) => {
    context.fillStyle = `rgba(11, 60, 120, ${parseInt(shade, 16) / 15})`;
    context.fillRect(i % side, Math.floor(i / side), 1, 1);
  });
  return canvas;
}

function select(head, focus) {
  show(head, focus);
  history.replaceState(null, "", "#" + head);
}

for (const image of document.querySelectorAll("img[data-key]")) image.src = data.pictures[image.dataset.key];
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details.chosen")) part.open = true; });
for (const canvas of document.querySelectorAll("canvas[data-map]")) drawn(canvas);
if (cells.length) {
  for (const choice of document.querySelectorAll("input[name=operator]")) {
    choice.addEventListener("change", () => { layer = Number(choice.value); paint(); });
  }
  table.addEventListener("click", (event) => {
    const cell = event.target.closest("button");
    if (cell) select(cell.dataset.head, true);
  });
  table.addEventListener("mouseover", (event) => {
    const cell = event.target.closest("button");
    if (cell) show(cell.dataset.head, false);
  });
  table.addEventListener("mouseleave", () => {
    const kept = location.hash.slice(1);
    if (kept) show(kept, false);
  });
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("button");
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!cell || !step) return;
    event.preventDefault();
    const [r, c] = cell.dataset.at.split(",").map(Number);
    const next = cells.find((one) => one.dataset.at === `${r + step[0]},${c + step[1]}`);
    if (next) select(next.dataset.head, true);
  });
  window.addEventListener("hashchange", () => show(location.hash.slice(1), true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  paint();
  show(cells.some((one) => one.dataset.head === location.hash.slice(1)) ? location.hash.slice(1) : data.first, false);
}
