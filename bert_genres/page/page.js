"use strict";
// What the server answers is data: it goes into the page as text only, never as markup.
const EXAMPLES = {
  "a heist": "A retired safecracker is blackmailed into one last bank job by the partner he once betrayed. " +
    "His daughter, a police detective, is put on the case. The night before the robbery she finds his old tools in the cellar.",
  "a ghost": "A widow rents a house on the moor and hears children laugh behind the walls at night. " +
    "The villagers will not speak of the school that burned down there. When her son begins to draw faces that he cannot know, " +
    "she breaks open the bricked-up door.",
  "a wedding": "Two rival florists must decorate the same wedding and loathe each other at first sight. " +
    "A spilled cake, a runaway dog and a night in a locked greenhouse change their minds. " +
    "On the day itself the bride is gone, and they are the only ones who know where.",
};
const TOO_LONG = 400000, WAIT = 250;
const $ = id => document.getElementById(id);
const percent = p => (p < .001 && p > 0 ? "< 0.1" : (100 * p).toFixed(p < .1 ? 1 : 0)) + " %";
const signed = v => (v < 0 ? "\u2212" : "+") + Math.abs(v).toFixed(3);
let model = null, chosen = null, turn = 0, whyTurn = 0, timer = null, explained = null;
const asking = {};        // what is under way, by path: a newer question ends it

function make(tag, text, ...children) {
  const node = document.createElement(tag);
  if (text !== null) node.textContent = text;
  node.append(...children);
  return node;
}

async function ask(path, body) {
  if (asking[path]) asking[path].abort();
  asking[path] = new AbortController();
  const response = await fetch(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
    signal: asking[path].signal});
  const said = await response.json();
  if (!response.ok) throw new Error(said.error);
  return said;
}

function clear(message) {
  $("summary").textContent = message;
  explained = null;
  for (const id of ["labels", "why", "near"]) $(id).hidden = true;
}

// One question at a time counts: the answer to an older one is dropped.
async function answer() {
  const mine = ++turn, text = $("text").value, step = Number($("step").value);
  whyTurn++;
  if (!text.trim()) return clear("Nothing to read yet.");
  if (text.length > TOO_LONG) return clear(`Too long: at most ${TOO_LONG.toLocaleString("en")} characters.`);
  try {
    const said = await ask("answer", {text, step});
    if (mine !== turn) return;
    showLabels(said);
    if (!said.labels.some(x => x.label === chosen)) chosen = said.labels[0].label;
  } catch (error) {
    if (mine === turn) clear(`No answer: ${error.message}`);
    return;
  }
  explain(chosen);
}

async function explain(label) {
  const mine = ++whyTurn, question = JSON.stringify([$("text").value, label]);
  chosen = label;
  press();
  if (question === explained) return;               // only the slider has moved
  explained = null;
  try {
    const why = await ask("why", {text: $("text").value, label});
    if (mine !== whyTurn) return;
    explained = question;
    showWhy(why);
  } catch (error) {
    if (mine === whyTurn) clear(`No answer: ${error.message}`);
  }
}

function press() {
  for (const button of $("labels").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.textContent === chosen));
  }
}

function showLabels(said) {
  const named = said.labels.filter(x => x.named).map(x => x.label);
  const part = said.cut ? ` The networks have read the first ${model.max_seq_len} word pieces; words count from the whole text.` : "";
  $("summary").textContent = (named.length ? `${named.length} of ${model.labels}: ${named.join(", ")}.`
                                           : `None of ${model.labels} is sure enough.`) + part;
  const focused = document.activeElement.closest("#labels") ? document.activeElement.textContent : null;
  $("labels").tBodies[0].replaceChildren(...said.labels.map(x => {
    const button = make("button", x.label), bar = make("div", null, make("b", ""), make("i", ""));
    button.type = "button";
    button.addEventListener("click", () => explain(x.label));
    bar.className = "bar";
    bar.firstChild.style.width = 100 * x.probability + "%";
    bar.lastChild.style.left = 100 * x.threshold + "%";
    const name = make("th", null, button), row = make("tr", null, name, make("td", null, bar),
      make("td", percent(x.probability)), make("td", percent(x.threshold)));
    name.scope = "row";
    row.className = x.named ? "named" : "not";
    return row;
  }));
  $("labels").hidden = false;
  for (const button of $("labels").querySelectorAll("button")) if (button.textContent === focused) button.focus();
}

function showWhy(said) {
  const x = said.labels[0], list = (id, pairs, show) => $(id).replaceChildren(...pairs.map(([name, v]) => make("li", show(name, v))));
  $("why-title").textContent = `Why ${x.label}`;
  $("why-said").textContent = `${percent(x.probability)}, ${x.named ? "named" : "not named"} at a threshold of ${percent(x.threshold)}` +
    " (with the slider in the middle).";
  $("sentences").replaceChildren(...said.sentences.map((sentence, k) => make("li", null,
    make("b", x.without.length ? `${percent(x.without[k])} ` : ""), make("span", sentence.trim()))));
  list("words", x.words, (name, v) => `${name} ${signed(v)}`);
  list("films", x.films, (name, v) => `${name} ${signed(v)}`);
  $("machine").hidden = !x.films.length;
  $("implied").textContent = x.implied_by.length ? `Named because of ${x.implied_by.join(", ")}, which implies it.` : "";
  $("why").hidden = false;
  list("similar", said.similar, (name, v) => `${name} (${v.toFixed(2)})`);
  $("near").hidden = !said.similar.length;
}

function draw(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

function showTradeoff() {
  const curve = model.tradeoff, step = Number($("step").value);
  if (!curve) {
    $("trade").textContent = "This model has kept no rows to tell what the slider costs.";
    return;
  }
  const k = curve.step.findIndex(s => Math.abs(s - step) < .05), x = s => 300 + 100 * s, y = v => 190 - 180 * v;
  $("trade").textContent = `Of ten labels that it names, ${(10 * curve.precision[k]).toFixed(1)} are right, and of ten that are ` +
    `right it names ${(10 * curve.recall[k]).toFixed(1)}: on ${model.rows}.`;
  const path = values => values.map((v, i) => `${x(curve.step[i])},${y(v)}`).join(" ");
  $("curve").replaceChildren(draw("rect", {x: 1, y: 10, width: 598, height: 180}),
    draw("polyline", {points: path(curve.precision)}), draw("polyline", {points: path(curve.recall), class: "recall"}),
    draw("line", {x1: x(step), x2: x(step), y1: 10, y2: 190}),
    draw("line", {x1: 1, x2: 599, y1: 100, y2: 100, class: "half"}), draw("text", {x: 8, y: 94}, "50 %"),
    draw("text", {x: 590, y: y(curve.precision[55]) + 22, "text-anchor": "end"}, "precision"),
    draw("text", {x: 590, y: y(curve.recall[55]) - 8, "text-anchor": "end"}, "recall"));
  $("curve").hidden = false;
}

async function start() {
  model = await (await fetch("model")).json();
  if (!model.films) for (const element of document.querySelectorAll("[data-general]")) element.textContent = element.dataset.general;
  $("model").textContent = `Recipe ${model.recipe}, ${model.trained === null ? "" : `trained on ${model.trained.toLocaleString("en")} texts, `}knows ${model.labels} labels.`;
  for (const [name, text] of Object.entries(EXAMPLES)) {
    const button = make("button", name);
    button.type = "button";
    button.addEventListener("click", () => { $("text").value = text; answer(); });
    $("examples").append(button);
  }
  const later = () => { clearTimeout(timer); timer = setTimeout(answer, WAIT); };
  $("text").addEventListener("input", later);
  $("step").addEventListener("input", () => { showTradeoff(); later(); });
  showTradeoff();
  answer();
}

start();
