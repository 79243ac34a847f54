"use strict";
// Makes the page from its data. Whatever comes from a run, names above all, enters by textContent or an attribute, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const several = data.runs.length > 1;
const perImage = data.per_image.map((name) => data.metrics.find((metric) => metric.name === name));
const ROWS = 500; // so many rows of the table are made at first: a browser is slow with tens of thousands

/** An element with attributes and children; functions are event listeners, strings are text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const digits = (metric) => metric.digits ?? 3;
const short = (metric) => (metric.title ?? metric.name).replace(/ \(.*\)$/, "");
const dot = (run) => (several ? make("i", { class: "dot", style: `--run: ${run}`, "aria-hidden": "true" }) : null);
const number = (metric, value, best) => make(best ? "b" : "span", {}, value.toFixed(digits(metric)));

function direction(metric) {
  if (metric.direction === "none") return [];
  const higher = metric.direction === "higher";
  return [make("span", { "aria-hidden": "true" }, higher ? " ↑" : " ↓"), make("span", { class: "hidden" }, ` (${metric.direction} is better)`)];
}

// The results

function summary() {
  const head = data.metrics.map((metric) => make("th", { scope: "col", title: metric.measures }, metric.title ?? metric.name, ...direction(metric)));
  const rows = data.runs.map((run, place) => {
    const cells = data.metrics.map((metric) => {
      const mean = metric.means[place];
      if (mean == null) return make("td", { class: "none", title: metric.unavailable[place] ?? "not measured" }, "–");
      const interval = metric.intervals[place];
      const range = interval && interval[0] < interval[1] ? interval.map((bound) => bound.toFixed(digits(metric))).join("–") : null;
      return make("td", {}, number(metric, mean, metric.best[place]), range && make("small", { title: "95 % interval" }, range));
    });
    const facts = make("small", {}, run.parts.join(" · "), make("br"), `${run.images} images · ${run.finished}`);
    return make("tr", {}, make("th", { scope: "row" }, dot(place), make("b", {}, run.label), facts), ...cells);
  });
  find("summary").append(make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Run"), ...head)), make("tbody", {}, ...rows));
  find("made").append(make("b", {}, "cclight"), ` ${data.version} · report of ${data.created}`);
  const notes = [];
  const shared = data.rows.filter((row) => row.shared).length;
  if (shared < data.rows.length) notes.push(`The runs hold different images, ${shared} of ${data.rows.length} are in all: their means do not compare.`);
  for (const metric of data.metrics) {
    const reasons = new Set(metric.unavailable.filter((reason) => reason));
    for (const reason of reasons) notes.push(`${metric.title ?? metric.name} is unavailable: ${reason}.`);
  }
  for (const metric of data.metrics.filter((one) => !one.comparable)) notes.push(`${metric.titles.join(" and ")} do not compare.`);
  if (data.metrics.some((metric) => metric.intervals.some((interval) => interval))) notes.push("Small: the 95 % interval of the mean over images.");
  find("notes").append(...notes.map((note) => make("li", {}, note)));
}

/** How often the clean pixel lies in the samples' central intervals, over how often it should: on the diagonal, all is well. */
function reliability() {
  const runs = data.runs.map((run, place) => ({ run, place })).filter(({ run }) => run.reliability);
  if (!runs.length) return;
  const draw = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const at = (nominal, actual) => `${100 * nominal},${100 - 100 * actual}`;
  const words = runs.map(({ run }) => `${run.label}: ${run.reliability.nominal.map((level, n) => `${Math.round(100 * level)} % hold ${Math.round(100 * run.reliability.actual[n])} %`).join(", ")}`);
  const chart = draw("svg", { viewBox: "-4 -4 108 108", role: "img", "aria-label": words.join("; ") });
  chart.append(draw("rect", { x: 0, y: 0, width: 100, height: 100 }), draw("line", { x1: 0, y1: 100, x2: 100, y2: 0 }));
  for (const { run, place } of runs) {
    const { nominal, actual } = run.reliability;
    const points = [at(0, 0), ...nominal.map((level, n) => at(level, actual[n])), at(1, 1)].join(" ");
    chart.append(draw("polyline", { points, class: "curve", style: `--run: ${place}` }));
  }
  const caption = make("figcaption", {}, "Do the samples cover the clean pixels? Actual over nominal coverage of their central intervals; on the dashed line spread is honest, below it the samples are too sure of themselves.");
  find("reliability").append(chart, caption);
  find("reliability").hidden = false;
}

// The sliders

const cards = new Map(); // by the row's place in data.rows

/** A before/after slider: what it shows is set by `show`; the split, zoom and pan are CSS variables of its stage. */
class Card {
  constructor(image) {
    this.image = image;
    this.row = data.rows[image.row];
    this.zoom = 1;
    this.x = this.y = 0; // the picture's shift, in parts of the stage
    this.pointers = new Map();
    this.before = this.side("before");
    this.after = this.side("after");
    this.range = make("input", { type: "range", min: 0, max: 100, value: 50, input: () => this.split(this.range.value), keydown: (event) => this.key(event) });
    this.stage = make("div", { class: "stage" }, this.after.element, this.before.element, this.before.tag, this.after.tag, make("div", { class: "handle" }), this.range);
    this.level = make("span", { class: "zoom", role: "status" }, "1×");
    const button = (text, label, action) => make("button", { type: "button", title: label, "aria-label": `${label}: ${this.row.name}`, click: action }, text);
    this.size = button("⤢", "Enlarge", () => this.enlarge());
    const tools = [this.level, button("−", "Zoom out", () => this.scale(1 / 1.5)), button("+", "Zoom in", () => this.scale(1.5)), button("1:1", "Whole picture", () => this.scale(0)), this.size];
    const name = make("div", { class: "name" }, make("b", { title: this.row.name }, `${this.row.name} `, make("span", { class: "soft" }, `#${this.row.index}`)), ...tools);
    this.element = make("figure", { class: "card", id: `image-${image.row}` }, this.stage, make("figcaption", {}, name, this.numbers()));
    this.element.style.setProperty("--ratio", image.width / image.height);
    this.listen();
  }

  side(which) {
    const picture = make("img", { alt: "", decoding: "async", draggable: "false" });
    const missing = make("p", { class: "missing" });
    return { element: make("div", { class: `side ${which}` }, picture, missing), picture, missing, tag: make("span", { class: `tag ${which}` }) };
  }

  numbers() {
    const shown = perImage.filter((metric) => !["nfe", "seconds"].includes(metric.name) && !/_best$|^coverage_/.test(metric.name));
    const head = make("tr", {}, make("th", { scope: "col" }, make("span", { class: "hidden" }, "Run")), ...shown.map((metric) => make("th", { scope: "col", title: metric.title }, short(metric))));
    const rows = data.runs.map((run, place) => {
      const cells = shown.map((metric) => valueCell(this.row, metric, place));
      return make("tr", {}, make("th", { scope: "row", title: run.label }, dot(place), run.label), ...cells);
    });
    return make("div", { class: "numbers" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }

  show(left, right) {
    for (const [side, choice] of [[this.before, left], [this.after, right]]) {
      const place = this.image.pictures[sampled(choice)] ?? this.image.pictures[choice.key];
      const failed = choice.kind === "restored" ? this.row.failed[Number(choice.key.split("-")[1])] : null;
      side.element.classList.toggle("measurement", choice.kind === "measurement");
      side.tag.textContent = choice.label + detail(choice, this.image);
      side.picture.hidden = place == null;
      side.missing.hidden = place != null;
      side.missing.textContent = place == null ? `${choice.label}: ${failed ?? "there is no such picture"}` : "";
      side.picture.alt = `${this.row.name}, ${choice.kind === "restored" ? `restored by ${choice.label}` : choice.label}`;
      if (place == null) side.picture.removeAttribute("src");
      else side.picture.src = data.pictures[place];
    }
    this.range.setAttribute("aria-label", `${this.row.name}: ${left.label} on the left, ${right.label} on the right`);
    this.split(this.range.value);
  }

  split(percent) {
    this.range.value = percent;
    this.range.setAttribute("aria-valuetext", `${this.range.value} % ${this.before.tag.textContent}`);
    this.stage.style.setProperty("--split", `${Math.min(100, Math.max(0, percent))}%`);
  }

  /** Zoom by a factor about a point of the stage (in parts of it); a factor of 0 shows the whole picture. */
  scale(factor, u = 0.5, v = 0.5) {
    const zoom = Math.min(16, Math.max(1, this.zoom * factor));
    const move = (shift, at) => at - ((at - shift) * zoom) / this.zoom;
    [this.x, this.y, this.zoom] = [move(this.x, u), move(this.y, v), zoom];
    this.pan(0, 0);
  }

  pan(dx, dy) {
    const inside = (shift) => Math.min(0, Math.max(1 - this.zoom, shift));
    [this.x, this.y] = [inside(this.x + dx), inside(this.y + dy)];
    for (const [key, value] of [["--x", this.x], ["--y", this.y], ["--zoom", this.zoom]]) this.stage.style.setProperty(key, value);
    this.stage.classList.toggle("zoomed", this.zoom > 1);
    this.stage.classList.toggle("pixels", (this.stage.clientWidth * this.zoom) / this.image.width >= 3);
    this.level.textContent = `${Number(this.zoom.toFixed(1))}×`;
  }

  enlarge() {
    const wide = this.element.classList.toggle("wide");
    this.size.setAttribute("aria-pressed", wide);
    this.pan(0, 0);
    this.element.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const step = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.shiftKey && step) this.pan(...step);
    else if (event.key === "+" || event.key === "=") this.scale(1.5);
    else if (event.key === "-") this.scale(1 / 1.5);
    else if (event.key === "0") this.scale(0);
    else return;
    event.preventDefault();
  }

  listen() {
    const place = (event) => {
      const box = this.stage.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    this.stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      this.range.focus({ preventScroll: true });
      this.stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, place(event));
      const onHandle = event.target.classList.contains("handle");
      this.panning = this.zoom > 1 && !onHandle;
      // A finger may be about to scroll the page: it moves the split when it moves sideways.
      if (!this.panning && !onHandle && event.pointerType !== "touch") this.split(100 * place(event)[0]);
    });
    this.stage.addEventListener("pointermove", (event) => {
      const old = this.pointers.get(event.pointerId);
      if (!old) return;
      const now = place(event);
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
      this.pointers.set(event.pointerId, now);
      if (other) {
        const spread = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
        this.pan((now[0] - old[0]) / 2, (now[1] - old[1]) / 2);
        this.scale(spread(now) / Math.max(spread(old), 0.01), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else if (this.panning) this.pan(now[0] - old[0], now[1] - old[1]);
      else this.split(100 * now[0]);
    });
    for (const end of ["pointerup", "pointercancel"]) this.stage.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    this.stage.addEventListener("dblclick", (event) => this.scale(this.zoom > 1 ? 0 : 4, ...place(event)));
    this.stage.addEventListener("wheel", (event) => {
      const meant = event.ctrlKey || event.metaKey || document.activeElement === this.range;
      if (!meant || (this.zoom === 1 && event.deltaY > 0 && !event.ctrlKey)) return; // else the page scrolls
      event.preventDefault();
      this.scale(Math.exp(-event.deltaY * (Math.abs(event.deltaY) < 30 ? 0.01 : 0.002)), ...place(event));
    }, { passive: false });
  }

  jump() {
    this.element.scrollIntoView({ block: "center" });
    this.range.focus({ preventScroll: true });
    this.element.classList.remove("found");
    void this.element.offsetWidth; // so that the animation starts again
    this.element.classList.add("found");
  }
}

const samples = Math.min(Math.max(...data.runs.map((run) => run.samples)), data.samples);
const sample = () => Number(find("sample").value);

/** Under which name a choice's picture lies: a restoration is the sample that was chosen, where its run has one. */
const sampled = (choice) => (choice.kind === "restored" && sample() ? `${choice.key}-${sample()}` : choice.key);

/** What the tag of a side says beyond the choice: which sample it is, what white means. */
function detail(choice, image) {
  if (choice.kind === "restored" && samples > 1) return `, sample ${sampled(choice) in image.pictures ? sample() : 0}`;
  return choice.key in image.largest ? `, white: ${Number(image.largest[choice.key].toPrecision(2))}` : "";
}

function showSides() {
  const [left, right] = ["left", "right"].map((id) => data.choices[find(id).value]);
  for (const card of cards.values()) card.show(left, right);
}

function sliders() {
  if (!data.images.length) {
    find("bar").querySelectorAll("#left, #right, #swap").forEach((element) => (element.closest("label") ?? element).hidden = true);
    document.querySelector(".hint").hidden = true;
    return;
  }
  for (const id of ["left", "right"]) {
    find(id).append(...data.choices.map((choice, place) => make("option", { value: place }, choice.label)));
    find(id).addEventListener("change", showSides);
  }
  if (samples > 1) {
    find("sampling").hidden = false;
    find("sample").max = samples - 1;
    find("sample").addEventListener("input", () => { find("sampling").querySelector("output").value = sample(); showSides(); });
  }
  find("left").value = 0; // the measurement comes first, where there is one
  find("right").value = data.choices.findIndex((choice) => choice.kind === "restored");
  find("swap").addEventListener("click", () => {
    [find("left").value, find("right").value] = [find("right").value, find("left").value];
    showSides();
  });
  for (const image of data.images) cards.set(image.row, new Card(image));
  showSides();
  legend();
}

/** What the colours of the maps mean, where there are maps. */
function legend() {
  if (!data.choices.some((choice) => choice.kind === "map")) return;
  const { net, brightest } = data.legend;
  find("legend").hidden = false;
  const scale = make("i", { role: "img", "aria-label": "black over red and yellow to white" });
  find("legend").append(`Difference to the eye, LPIPS' distance (${net}) of each pixel: 0`, scale, `${brightest} or more; 0.1 is hardly seen, 0.5 is plain.`);
}

// The order, of the sliders and of the table

const order = { key: "index", run: 0, descending: false };
let limit = ROWS;

function valueCell(row, metric, run) {
  const value = row.values[metric.name][run];
  const edge = several && run === 0 ? "first" : null;
  if (value == null) return make("td", { class: ["none", edge].filter(Boolean).join(" ") }, row.failed[run] ? "failed" : "–");
  const known = row.values[metric.name].filter((other) => other != null);
  const best = metric.direction === "none" ? null : metric.direction === "lower" ? Math.min(...known) : Math.max(...known);
  return make("td", { class: edge }, number(metric, value, several && metric.comparable && value === best && Math.min(...known) < Math.max(...known)));
}

/** The places of the rows that the filter lets through, in order; those without the value come last. */
function ordered() {
  const words = find("filter").value.trim().toLowerCase();
  const value = (row) => (order.key === "index" || order.key === "name" ? row[order.key] : row.values[order.key][order.run]);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  return data.rows.map((row, place) => ({ place, key: value(row), name: row.name.toLowerCase(), index: String(row.index) }))
    .filter((row) => row.name.includes(words) || row.index === words)
    .sort((a, b) => (a.key == null) - (b.key == null) || (a.key == null ? 0 : (order.descending ? -1 : 1) * compare(a.key, b.key)) || a.place - b.place)
    .map((row) => row.place);
}

function tableHead() {
  const column = (text, key, run, attributes = {}) => make("th", { scope: "col", "data-key": key, "data-run": run, ...attributes },
    make("button", { type: "button", click: () => sortBy(key, run, order.key === key && order.run === run && !order.descending) }, ...text));
  const fixed = (attributes) => [column(["#"], "index", 0, attributes), column(["Image"], "name", 0, { class: "text", ...attributes })];
  if (!several) return make("thead", {}, make("tr", {}, ...fixed({}), ...perImage.map((metric) => column([metric.title, ...direction(metric)], metric.name, 0, { title: metric.measures }))));
  const groups = perImage.map((metric) => make("th", { scope: "colgroup", colspan: data.runs.length, class: "first", title: metric.measures }, metric.title, ...direction(metric)));
  const runs = perImage.flatMap((metric) => data.runs.map((run, place) => column([dot(place), run.label], metric.name, place, { class: place ? null : "first" })));
  return make("thead", {}, make("tr", {}, ...fixed({ rowspan: 2 }), ...groups), make("tr", {}, ...runs));
}

function tableRow(place) {
  const row = data.rows[place];
  const card = cards.get(place);
  const jump = (event) => { event.preventDefault(); card.jump(); };
  const name = card ? make("a", { href: `#image-${place}` }, row.name) : row.name;
  const cells = perImage.flatMap((metric) => data.runs.map((_, run) => valueCell(row, metric, run)));
  const click = card ? { class: "linked", click: jump } : {};
  return make("tr", click, make("td", { class: "text" }, String(row.index)), make("td", { class: "text" }, name), ...cells);
}

function sortBy(key, run, descending) {
  Object.assign(order, { key, run, descending });
  arrange();
}

function arrange() {
  const places = ordered();
  find("cards").replaceChildren(...places.filter((place) => cards.has(place)).map((place) => cards.get(place).element));
  find("images").tBodies[0].replaceChildren(...places.slice(0, limit).map(tableRow));
  for (const head of find("images").querySelectorAll("[data-key]")) {
    const here = head.dataset.key === order.key && Number(head.dataset.run) === order.run;
    if (here) head.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  const pictures = find("cards").childElementCount;
  const shown = pictures === data.rows.length ? `${pictures} images` : `${pictures} of ${data.rows.length} images in pictures`;
  find("shown").textContent = data.images.length ? shown : "No pictures to show: none were saved, none are in all of the runs, or --images was 0.";
  find("all").hidden = places.length <= limit;
  find("all").textContent = `Show all ${places.length} rows`;
}

function orders() {
  perImage.filter((metric) => metric.direction !== "none").forEach((metric) => data.runs.forEach((run, place) => find("by").append(
    make("option", { value: JSON.stringify([metric.name, place]) }, several ? `${short(metric)} of ${run.label}` : short(metric)))));
  const preferred = perImage.find((metric) => metric.name === "lpips") ?? perImage[0];
  if (preferred) find("by").value = JSON.stringify([preferred.name, 0]);
  else document.querySelector(".group").hidden = true;
  const shortcut = (worst) => () => {
    const [name, run] = JSON.parse(find("by").value);
    sortBy(name, run, (data.metrics.find((metric) => metric.name === name).direction === "higher") !== worst);
  };
  find("best").addEventListener("click", shortcut(false));
  find("worst").addEventListener("click", shortcut(true));
  find("filter").addEventListener("input", arrange);
  find("bar").addEventListener("submit", (event) => event.preventDefault());
  find("all").addEventListener("click", () => { limit = Infinity; arrange(); });
  find("images").append(tableHead(), make("tbody"));
  arrange();
}

// Failures and settings

function failures() {
  const lines = data.rows.flatMap((row) => row.failed.map((reason, run) => reason && `${data.runs[run].label}: image ${row.index} (${row.name}) failed: ${reason}`));
  for (const run of data.runs) lines.push(...run.left_out.map((image) => `${run.label}: image ${image.index} was left out: ${image.reason}`));
  const kept = [...lines.filter((line) => line), ...data.notes];
  find("failures").hidden = !kept.length;
  find("failure-list").append(...kept.map((line) => make("li", {}, line)));
}

function settings() {
  if (data.differences.length) {
    const head = make("tr", {}, make("th", { scope: "col" }, "Setting in which the runs differ"), ...data.runs.map((run, place) => make("th", { scope: "col" }, dot(place), run.label)));
    const rows = data.differences.map(({ key, values }) => make("tr", {}, make("th", { scope: "row" }, key), ...values.map((value) => make("td", {}, value ?? "–"))));
    find("differences").append(make("thead", {}, head), make("tbody", {}, ...rows));
  }
  find("configs").append(...data.runs.map((run, place) => make("details", {},
    make("summary", {}, dot(place), run.label, make("span", { class: "soft" }, ` config.yaml · ${run.path}`)),
    make("pre", { tabindex: 0 }, ...run.config.map(([line, differs]) => make(differs ? "mark" : "span", {}, line))))));
}

summary();
reliability();
sliders();
orders();
failures();
settings();
