// Everything is in `world`; what is looked at is in `view`. The canvas is drawn anew on each change.
const $ = id => document.getElementById(id);
const deflated = Uint8Array.from(atob($('data').textContent), letter => letter.charCodeAt(0));
const inflated = new Blob([deflated]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
const world = JSON.parse(await new Response(inflated).text());
const S = world.strings;
const N = world.at.length;
const GUTTER = 186, AXIS = 26, ROW_MIN = 15, ROW_MAX = 30;

// ---- what there is ----
const times = new Float64Array(N);
for (let i = 0, t = 0; i < N; i++) { t += world.at[i]; times[i] = t; }
const end = Math.max(world.end, 1);
const what = i => S[world.what[i]];
const text = i => S[world.text[i]];
const lane = i => world.lanes[world.lane[i]];
const KINDS = {
  log: ['produce', 'poll', 'commit_offsets', 'subscribe'], store: ['begin', 'run', 'commit', 'read'],
  queue: ['publish', 'consume', 'deliver', 'settle'], http: ['http'], outside: ['outside'], bad: ['fault', 'killed', 'crashed'],
};
const kindOf = {};
for (const [kind, names] of Object.entries(KINDS)) for (const name of names) kindOf[name] = kind;
const kind = i => kindOf[what(i)] || 'life';
const seconds = t => (t / 1e6).toFixed(3) + ' s';

const recordsOf = new Map();
world.records.forEach((record, number) => {
  record.children = [];
  for (let k = 0; k < record.steps.length; k += 2) {
    const event = record.steps[k];
    if (!recordsOf.has(event)) recordsOf.set(event, new Set());
    recordsOf.get(event).add(number);
  }
});
world.records.forEach((record, number) => record.parents.forEach(p => world.records[p].children.push(number)));
const queues = new Map(world.lanes.map((l, n) => [l, n]).filter(([l]) => l.kind === 'queue').map(([l, n]) => [l.name, n]));

// Marks outside of their node's lane: what came to lie in a partition, what went through a queue.
const marks = [];
world.records.forEach((record, number) => {
  for (const [at, offset, t] of record.places) marks.push({ lane: at, t, number, offset });
  const queue = queues.get(S[record.to]);
  if (queue !== undefined) for (let k = 0; k < record.steps.length; k += 2) {
    const step = world.steps[record.steps[k + 1]];
    if (step === 'sent' || step === 'read') marks.push({ lane: queue, t: times[record.steps[k]], number, event: record.steps[k] });
  }
});
marks.sort((a, b) => a.t - b.t);
const byLane = world.lanes.map(() => []);
for (let i = 0; i < N; i++) byLane[world.lane[i]].push(i);
const rows = new Map(world.rows.map(r => [r[0], { begun: r[1], rows: r.slice(2) }]));
const whole = new Map();
for (const [i, { begun }] of rows) whole.set(begun, [...(whole.get(begun) || []), i]);
const over = new Map(world.transactions);
const withoutEffect = new Set(world.without_effect);

// ---- what is looked at ----
const view = { from: 0, to: end, event: -1, record: -1, at: 0, filter: '', shown: null };
let way = { steps: [], events: new Map(), records: new Set() };

function matches(i, words) {
  if (what(i) === 'fault' || what(i) === 'healed') return true;
  if (text(i).toLowerCase().includes(words)) return true;
  for (const number of recordsOf.get(i) || []) if (recordMatches(number, words)) return true;
  const touched = rows.get(i);
  if (touched) for (let k = 2; k < touched.rows.length; k += 3) if (S[touched.rows[k]].toLowerCase().includes(words)) return true;
  return false;
}
const recordMatches = (number, words) => {
  const record = world.records[number];
  return [record.key, record.label, record.to].some(s => S[s].toLowerCase().includes(words));
};
function setFilter(words) {
  view.filter = words.trim();
  const low = view.filter.toLowerCase();
  view.shown = low ? Uint8Array.from({ length: N }, (_, i) => matches(i, low) ? 1 : 0) : null;
  if ($('filter').value !== words) $('filter').value = words;
}
const shown = i => !view.shown || view.shown[i] === 1;

function select(event, record) {
  view.event = event;
  const all = recordsAt(event);
  const low = view.filter.toLowerCase();
  const fitting = low ? all.filter(n => recordMatches(n, low)) : all;
  view.record = record !== undefined && record >= 0 ? record : fitting[0] ?? all[0] ?? -1;
  way = wayOf(view.record);
  if (event >= 0) { view.at = times[event]; reveal(view.at); }
}

// Records that an event touched, or else those of its transaction.
function recordsAt(event) {
  const own = recordsOf.get(event);
  if (own) return [...own];
  const of = whole.get(rows.get(event)?.begun) || [];
  return [...new Set(of.flatMap(i => [...(recordsOf.get(i) || [])]))];
}

// The record, all that it follows from, and all that follows from it.
function wayOf(record) {
  const found = { steps: [], events: new Map(), records: new Set() };
  if (record < 0) return found;
  const walk = (start, next) => {
    const todo = [start];
    const seen = new Set([start]);
    while (todo.length) for (const n of next(world.records[todo.pop()])) if (!seen.has(n)) { seen.add(n); todo.push(n); }
    seen.forEach(n => found.records.add(n));
  };
  walk(record, r => r.parents);
  walk(record, r => r.children);
  const order = [...found.records].sort((a, b) => first(a) - first(b));
  for (const number of order) {
    const steps = world.records[number].steps;
    const list = [];
    for (let k = 0; k < steps.length; k += 2) {
      list.push([steps[k], world.steps[steps[k + 1]]]);
      if (!found.events.has(steps[k])) found.events.set(steps[k], number);
    }
    list.sort((a, b) => a[0] - b[0]);
    found.steps.push({ number, list });
  }
  return found;
}
const first = number => Math.min(...world.records[number].steps.filter((_, k) => k % 2 === 0), Infinity);
const nameOf = number => { const r = world.records[number]; return S[r.label] || S[r.to]; };

function reveal(t) {
  const span = view.to - view.from;
  if (t >= view.from && t <= view.to) return;
  view.from = Math.max(0, Math.min(t - span / 2, end * 1.02 - span));
  view.to = view.from + span;
}
function zoom(factor, around) {
  const span = Math.min(end * 1.04, Math.max(2e3, (view.to - view.from) * factor));
  const part = (around - view.from) / (view.to - view.from);
  view.from = Math.max(-end * .02, around - part * span);
  view.to = view.from + span;
}
function closeUp() {
  const at = [...way.events.keys()].map(i => times[i]);
  if (!at.length) return;
  const from = Math.min(...at), to = Math.max(...at), room = Math.max((to - from) * .06, 2e3);
  view.from = from - room; view.to = to + room;
}
function fit() { view.from = -end * .01; view.to = end * 1.02; }

// ---- the canvas ----
const chart = $('chart'), canvas = $('canvas'), pen = canvas.getContext('2d');
let size = { w: 0, h: 0, row: ROW_MIN };
const x = t => GUTTER + (t - view.from) / (view.to - view.from) * (size.w - GUTTER - 12);
const timeAt = px => view.from + (px - GUTTER) / (size.w - GUTTER - 12) * (view.to - view.from);
const y = n => AXIS + n * size.row + size.row / 2 + 14 * groups(n) - chart.scrollTop;
const groups = n => ['node', 'partition', 'queue'].indexOf(world.lanes[n].kind) + 1;

function resize() {
  size.w = chart.clientWidth; size.h = chart.clientHeight;
  const lanes = world.lanes.length, extra = AXIS + 14 * 4;
  size.row = Math.max(ROW_MIN, Math.min(ROW_MAX, (size.h - extra) / lanes));
  const ratio = window.devicePixelRatio || 1;
  canvas.width = size.w * ratio; canvas.height = size.h * ratio;
  canvas.style.width = size.w + 'px'; canvas.style.height = size.h + 'px';
  // The canvas stays where it is while the chart scrolls behind it.
  canvas.style.marginBottom = Math.max(0, extra + lanes * size.row - size.h - 8) + 'px';
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
}

function firstAt(list, t, of) {
  let lo = 0, hi = list.length;
  while (lo < hi) { const mid = (lo + hi) >> 1; if (of(list[mid]) < t) lo = mid + 1; else hi = mid; }
  return lo;
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue('--' + name).trim();
  const c = Object.fromEntries(['ground', 'panel', 'line', 'ink', 'soft', 'faint', 'stripe', 'accent', 'bad', 'log', 'store', 'queue', 'http', 'outside', 'life', 'band'].map(n => [n, colour(n)]));
  pen.fillStyle = c.ground; pen.fillRect(0, 0, size.w, size.h);
  const dim = way.steps.length > 0;
  const rowH = size.row, half = rowH / 2;
  pen.textBaseline = 'middle';
  // lanes
  world.lanes.forEach((l, n) => {
    const at = y(n);
    if (at < -40 || at > size.h + 40) return;
    if (n % 2 === 0) { pen.fillStyle = c.stripe; pen.fillRect(0, at - half, size.w, rowH); }
  });
  // bands of faults, and of nodes that are down
  pen.save(); pen.beginPath(); pen.rect(GUTTER, 0, size.w - GUTTER, size.h); pen.clip();
  for (const band of world.bands) {
    const from = x(band.from), to = Math.max(from + 2, x(band.to));
    if (to < GUTTER || from > size.w) continue;
    pen.fillStyle = c.band; pen.fillRect(from, y(band.lane) - half + 1, to - from, rowH - 2);
    pen.fillStyle = c.bad; pen.fillRect(from, y(band.lane) - half + 1, 1.5, rowH - 2);
  }
  for (const [n, from, to] of downs) {
    const a = x(from), b = x(to);
    if (b < GUTTER || a > size.w) continue;
    pen.strokeStyle = c.bad; pen.lineWidth = 1.5; pen.setLineDash([3, 3]);
    pen.beginPath(); pen.moveTo(a, y(n)); pen.lineTo(b, y(n)); pen.stroke(); pen.setLineDash([]);
  }
  // events: at most one stroke a pixel, kind and lane
  const tall = Math.max(3, half - 3);
  pen.globalAlpha = dim ? .22 : .9;
  for (let n = 0; n < byLane.length; n++) {
    const list = byLane[n], at = y(n);
    if (at < AXIS - rowH || at > size.h + rowH) continue;
    const last = {};
    for (let k = firstAt(list, view.from, i => times[i]); k < list.length; k++) {
      const i = list[k];
      if (times[i] > view.to) break;
      if (!shown(i)) continue;
      const of = kind(i), px = Math.round(x(times[i]));
      if (last[of] === px) continue;
      last[of] = px;
      pen.fillStyle = c[of] || c.life;
      if (of === 'bad') { pen.globalAlpha = 1; pen.fillRect(px - 1, at - half + 1, 2.5, rowH - 2); pen.globalAlpha = dim ? .22 : .9; }
      else pen.fillRect(px - .5, at - tall, 2, tall * 2);
    }
  }
  let last = -1, lastLane = -1;
  for (let k = firstAt(marks, view.from, m => m.t); k < marks.length && marks[k].t <= view.to; k++) {
    const m = marks[k], px = Math.round(x(m.t));
    if (view.filter && !recordMatches(m.number, view.filter.toLowerCase())) continue;
    if (last === px && lastLane === m.lane) continue;
    last = px; lastLane = m.lane;
    pen.fillStyle = world.lanes[m.lane].kind === 'queue' ? c.queue : c.log;
    pen.beginPath(); pen.arc(px, y(m.lane), Math.min(3.5, half - 2), 0, 7); pen.fill();
  }
  pen.globalAlpha = 1;
  if (dim) drawWay(c);
  // the instant
  const cx = x(view.at);
  pen.strokeStyle = c.accent; pen.lineWidth = 1;
  pen.beginPath(); pen.moveTo(cx, AXIS - 4); pen.lineTo(cx, size.h); pen.stroke();
  if (view.event >= 0) {
    pen.lineWidth = 2; pen.strokeStyle = c.accent; pen.fillStyle = c.panel;
    pen.beginPath(); pen.arc(cx, y(world.lane[view.event]), 5.5, 0, 7); pen.fill(); pen.stroke();
  }
  pen.restore();
  // names, over whatever ran under them
  pen.fillStyle = c.ground; pen.fillRect(0, 0, GUTTER, size.h);
  world.lanes.forEach((l, n) => {
    const at = y(n);
    if (at < -40 || at > size.h + 40) return;
    if (n % 2 === 0) { pen.fillStyle = c.stripe; pen.fillRect(0, at - half, GUTTER, rowH); }
    if (n === 0 || world.lanes[n - 1].kind !== l.kind) {
      pen.fillStyle = c.soft; pen.font = '600 10px system-ui, "DejaVu Sans", sans-serif'; pen.textAlign = 'left';
      pen.fillText({ node: 'PROCESSES', partition: 'PARTITIONS', queue: 'QUEUES' }[l.kind], 16, at - half - 7);
    }
    pen.fillStyle = view.event >= 0 && world.lane[view.event] === n ? c.accent : c.ink;
    pen.font = '12px system-ui, "DejaVu Sans", sans-serif'; pen.textAlign = 'left';
    pen.fillText(l.name, 16, at, GUTTER - 26);
  });
  pen.fillStyle = c.line; pen.fillRect(GUTTER - 1, 0, 1, size.h);
  axis(c);
}

function axis(c) {
  pen.fillStyle = c.ground; pen.fillRect(0, 0, size.w, AXIS - 4);
  const span = view.to - view.from, want = span / Math.max(2, (size.w - GUTTER) / 110);
  const base = 10 ** Math.floor(Math.log10(want));
  const every = [1, 2, 5, 10].map(m => m * base).find(step => step >= want);
  const digits = Math.max(0, 6 - Math.floor(Math.log10(every) + 1e-9));
  pen.font = '11px system-ui, "DejaVu Sans", sans-serif'; pen.textAlign = 'center';
  for (let t = Math.max(0, Math.ceil(view.from / every) * every); t <= view.to; t += every) {
    const at = x(t);
    if (at < GUTTER) continue;
    pen.fillStyle = c.soft; pen.fillText((t / 1e6).toFixed(digits) + ' s', at, 11);
    pen.fillStyle = c.line; pen.fillRect(at, AXIS - 6, 1, 4);
  }
  pen.fillStyle = c.line; pen.fillRect(0, AXIS - 3, size.w, 1);
}

// From its sender to where it lay, and from there to each node that took it up.
function chains(number, list) {
  const point = i => [times[i], world.lane[i], kind(i)];
  const before = list.filter(([, step]) => BEFORE.has(step)).map(([i]) => point(i));
  const hubs = world.records[number].places.map(([n, , t]) => [t, n, 'log']);
  const queue = queues.get(S[world.records[number].to]);
  if (queue !== undefined) for (const [i, step] of list) if (step === 'sent') hubs.push([times[i] + 1, queue, 'queue']);
  const all = [[...before, ...hubs].sort((p, q) => p[0] - q[0])];
  const after = new Map();
  for (const [i, step] of list) {
    if (BEFORE.has(step)) continue;
    const n = world.lane[i];
    if (!after.has(n)) after.set(n, hubs.filter(([t]) => t <= times[i]).slice(-1));
    after.get(n).push(point(i));
  }
  return [...all, ...after.values()];
}
const BEFORE = new Set(['request', 'row, outbox', 'sent']);

function drawWay(c) {
  for (const { number, list } of way.steps) {
    const here = number === view.record;
    const lines = chains(number, list);
    pen.strokeStyle = here ? c.accent : c.faint; pen.lineWidth = here ? 1.8 : 1; pen.globalAlpha = here ? .9 : .6;
    for (const points of lines) {
      pen.beginPath();
      points.forEach(([t, n], k) => k ? pen.lineTo(x(t), y(n)) : pen.moveTo(x(t), y(n)));
      pen.stroke();
    }
    pen.globalAlpha = 1;
    for (const [t, n, of] of lines.flat()) {
      pen.fillStyle = c[of] || c.life; pen.strokeStyle = c.ground; pen.lineWidth = 1.5;
      pen.beginPath(); pen.arc(x(t), y(n), here ? 5 : 3.5, 0, 7); pen.fill(); pen.stroke();
    }
  }
}

// ---- states ----
const ENDS = { started: 'up', thawed: 'up', killed: 'down', left: 'down', 'left late': 'down', 'start failed': 'down', leaving: 'leaving', frozen: 'frozen' };
const downs = [];
byLane.forEach((list, n) => {
  let since = null;
  for (const i of list) {
    const to = ENDS[what(i)];
    if (to === 'down') since ??= times[i];
    else if (to === 'up' && since !== null) { downs.push([n, since, times[i]]); since = null; }
  }
  if (since !== null) downs.push([n, since, end]);
});
const alive = new Set(byLane.map((list, n) => list.some(i => what(i) === 'started') ? n : -1));

function stateOf(n, t) {
  const list = byLane[n], state = { is: 'up', open: [], wrote: {}, calls: [] };
  const until = firstAt(list, t + .5, i => times[i]);
  const committed = new Set();
  for (let k = 0; k < until; k++) {
    const i = list[k];
    state.is = ENDS[what(i)] || state.is;
    if (what(i) === 'commit' && !withoutEffect.has(i)) committed.add(rows.get(i)?.begun ?? i);
    if (what(i) === 'begin' && (over.get(i) ?? -1) > t) state.open.push(i);
  }
  const keys = {};
  for (let k = 0; k < until; k++) {
    const touched = rows.get(list[k]);
    if (!touched || !committed.has(touched.begun)) continue;
    for (let r = 0; r < touched.rows.length; r += 3) {
      const verb = S[touched.rows[r]];
      if (verb === 'put' || verb === 'insert') (keys[S[touched.rows[r + 1]]] ??= new Set()).add(touched.rows[r + 2]);
    }
  }
  for (const table of Object.keys(keys).sort()) state.wrote[table] = keys[table].size;
  state.calls = list.slice(Math.max(0, until - 4), until).reverse();
  if (state.is === 'down') state.open = [];
  return state;
}

// ---- the side ----
const el = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
};

function showEvent() {
  const box = $('event');
  box.replaceChildren();
  const i = view.event;
  if (i < 0) { box.append(el('p', { className: 'soft', textContent: 'Click an event, or step with ← and →.' })); return; }
  box.append(el('p', {}, el('strong', { textContent: `${what(i)} ` }), `on ${lane(i).name} at ${seconds(times[i])} `, el('span', { className: 'soft', textContent: `event ${i}` })));
  if (text(i)) box.append(el('p', { className: 'mono', textContent: text(i) }));
  const all = recordsAt(i);
  if (all.length > 1) {
    const choices = el('div', { className: 'choices' });
    for (const number of all.slice(0, 40)) {
      const button = el('button', { textContent: `${nameOf(number)} ${S[world.records[number].key].slice(-6)}` });
      button.setAttribute('aria-pressed', number === view.record);
      button.onclick = () => { select(i, number); show(); };
      choices.append(button);
    }
    box.append(choices);
  }
  const touched = rows.get(i);
  if (touched && touched.rows.length) {
    const lines = [];
    for (let k = 0; k < touched.rows.length && lines.length < 12; k += 3) lines.push(`${S[touched.rows[k]]} ${S[touched.rows[k + 1]]} ${S[touched.rows[k + 2]]}`);
    const more = touched.rows.length / 3 - lines.length;
    if (more > 0) lines.push(`and ${more} more rows`);
    box.append(el('p', { className: 'mono soft', innerText: lines.join('\n') }));
  }
}

function showWay() {
  const list = $('way');
  list.replaceChildren();
  if (!way.steps.length) { list.append(el('li', { className: 'head none', textContent: 'No record went through it.' })); return; }
  for (const { number, list: steps } of way.steps) {
    const record = world.records[number];
    const places = record.places.map(([n, offset]) => `${world.lanes[n].name}@${offset}`).join(' ');
    const head = el('li', { className: 'head' }, nameOf(number), el('div', { className: 'mono', textContent: `${S[record.key]}  ${places || S[record.to]}` }));
    if (number === view.record && S[record.payload]) head.append(el('div', { className: 'mono', textContent: S[record.payload] }));
    list.append(head);
    for (const [i, step] of steps) {
      const row = el('li', { className: i === view.event ? 'here' : '' }, el('time', { textContent: (times[i] / 1e6).toFixed(3) }), el('span', { textContent: step }), el('span', { className: 'text', textContent: `${lane(i).name} ${what(i)}`, title: text(i) }));
      row.dataset.event = i; row.dataset.step = step;
      row.onclick = () => { select(i, number); show(); };
      list.append(row);
    }
  }
  // Within the list alone: the page itself stays where it is.
  const here = list.querySelector('.here');
  if (here) {
    const top = here.offsetTop - list.offsetTop;
    list.scrollTop = top + 40 < list.clientHeight ? 0 : top - 60;
  }
}

function showState() {
  $('state-head').textContent = `Nodes at ${seconds(view.at)}`;
  const table = el('table');
  const chosen = view.event >= 0 ? world.lane[view.event] : -1;
  for (const n of alive) {
    if (n < 0) continue;
    const state = stateOf(n, view.at), name = world.lanes[n].name;
    const doing = state.open.length ? `transaction open since ${state.open.map(i => seconds(times[i])).join(', ')}` : '';
    const cell = el('td', {}, el('span', {}, el('i', { className: 'dot ' + (state.is === 'up' ? '' : state.is) }), state.is), doing ? el('div', { className: 'small', textContent: doing }) : '');
    if (n === chosen) {
      const wrote = Object.entries(state.wrote).map(([t, count]) => `${t} ${count}`).join(' · ');
      cell.append(el('div', { className: 'small', textContent: `rows written so far: ${wrote || 'none'}` }));
      for (const i of state.calls) cell.append(el('div', { className: 'small mono', textContent: `${(times[i] / 1e6).toFixed(3)} ${what(i)} ${text(i)}`.slice(0, 120) }));
    }
    const row = el('tr', { className: n === chosen ? 'here' : '' }, el('td', { textContent: name }), cell);
    row.dataset.node = name; row.dataset.is = state.is;
    row.onclick = () => { const k = firstAt(byLane[n], view.at + .5, i => times[i]) - 1; if (k >= 0) { const at = view.at; select(byLane[n][k]); view.at = at; show(); } };
    table.append(row);
  }
  $('state').replaceChildren(table);
}

function show() { draw(); showEvent(); showWay(); showState(); remember(); }

// ---- the head ----
function showHead() {
  $('title').textContent = `World ${world.seed}`;
  document.title = `World ${world.seed}`;
  const cut = [world.left_out ? `the first ${world.left_out} events are left out` : '', world.cut ? 'long texts are cut' : ''].filter(Boolean);
  $('subtitle').textContent = [`${N.toLocaleString('en')} events in ${(end / 1e6).toFixed(1)} s of simulated time`, `${world.bands.length} faults met`, `hash ${world.hash.slice(0, 12)}`, ...cut].join(' · ');
  const box = $('verdict');
  if (!world.violations.length) {
    box.className = 'good';
    box.append(el('strong', { textContent: `Clean: ${world.invariants || 'all'} invariants hold` }));
  } else {
    box.className = 'bad';
    const known = world.known.includes(world.violations[0].invariant) ? ' (known of this workload)' : '';
    box.append(el('strong', { textContent: `Broken: ${world.violations[0].invariant}${known}` }));
    const facts = el('ul');
    for (const v of world.violations.slice(0, 30)) {
      const line = el('li', {}, `${v.invariant === world.violations[0].invariant ? '' : v.invariant + ': '}${v.text} `);
      for (const about of v.about) {
        const link = el('a', { href: '#', textContent: about });
        link.onclick = e => { e.preventDefault(); setFilter(about); show(); };
        line.append(link, ' ');
      }
      facts.append(line);
    }
    box.append(facts, el('code', { textContent: world.again }));
  }
  if (world.lines.length) box.append(el('details', {}, el('summary', { textContent: 'What it came to' }), el('pre', { className: 'mono', textContent: world.lines.join('\n') })));
  const legend = { log: 'log', store: 'database', queue: 'queue', http: 'requests', outside: 'outside', life: 'lifecycle, notes', bad: 'faults and kills; a band while one lasts, dashes while a node is down' };
  for (const [name, words] of Object.entries(legend)) $('legend').append(el('span', {}, el('i', { style: `background: var(--${name})` }), words));
}

// ---- the address ----
let silent = false;
function remember() {
  const parts = new URLSearchParams();
  if (view.event >= 0) parts.set('event', view.event);
  if (view.filter) parts.set('order', view.filter);
  if (view.at > 0) parts.set('at', (view.at / 1e6).toFixed(6));
  if (view.from > 0 || view.to < end) parts.set('zoom', `${(view.from / 1e6).toFixed(6)}..${(view.to / 1e6).toFixed(6)}`);
  if (theme) parts.set('theme', theme);
  silent = true;
  history.replaceState(null, '', '#' + parts);
  silent = false;
}
function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  theme = parts.get('theme') || '';
  applyTheme();
  setFilter(parts.get('order') || '');
  const event = Number(parts.get('event') ?? -1);
  const asked = parts.get('at');
  view.event = -1;
  select(Number.isInteger(event) && event >= 0 && event < N ? event : -1);
  if (asked !== null && Number.isFinite(Number(asked))) view.at = Number(asked) * 1e6;
  const zoomed = (parts.get('zoom') || '').split('..').map(Number);
  if (zoomed.length === 2 && zoomed[0] < zoomed[1]) { view.from = zoomed[0] * 1e6; view.to = zoomed[1] * 1e6; } else closeUp();
  reveal(view.at);
  show();
}

let theme = '';
const system = window.matchMedia('(prefers-color-scheme: dark)');
const dark = () => theme ? theme === 'dark' : system.matches;
function applyTheme() { document.documentElement.dataset.theme = dark() ? 'dark' : 'light'; }
system.addEventListener('change', () => { applyTheme(); draw(); });
function toggleTheme() { theme = dark() ? 'light' : 'dark'; applyTheme(); show(); }

// ---- hands ----
function step(by) {
  let i = view.event;
  if (i < 0) { i = by > 0 ? firstIndex(view.at) - 1 : firstIndex(view.at); }
  do i += by; while (i >= 0 && i < N && !shown(i));
  if (i >= 0 && i < N) { select(i); show(); }
}
const firstIndex = t => { let lo = 0, hi = N; while (lo < hi) { const m = (lo + hi) >> 1; if (times[m] < t) lo = m + 1; else hi = m; } return lo; };
function stepWay(by) {
  const all = way.steps.flatMap(({ number, list }) => list.map(([i]) => [i, number]));
  const at = all.findIndex(([i, number]) => i === view.event && number === view.record);
  const next = all[at + by];
  if (next) { select(...next); show(); }
}

function near(px, py) {
  let best = -1, least = 9;
  let nearest = -1, away = size.row;
  for (let n = 0; n < world.lanes.length; n++) { const d = Math.abs(y(n) - py); if (d < away) { away = d; nearest = n; } }
  if (nearest < 0) return { event: -1 };
  const list = byLane[nearest];
  for (let k = firstAt(list, timeAt(px - 9), i => times[i]); k < list.length && times[list[k]] <= timeAt(px + 9); k++) {
    if (!shown(list[k])) continue;
    const bonus = way.events.has(list[k]) || what(list[k]) === 'fault' ? 2 : 0;
    const d = Math.abs(x(times[list[k]]) - px) - bonus;
    if (d < least) { least = d; best = list[k]; }
  }
  if (best >= 0) return { event: best };
  for (const m of marks) if (m.lane === nearest && Math.abs(x(m.t) - px) < least) { least = Math.abs(x(m.t) - px); best = m; }
  return best === -1 ? { event: -1 } : { event: best.event ?? sentBy(best), record: best.number, mark: best };
}
// The last event before a mark that sent its record.
function sentBy(mark) {
  const steps = world.records[mark.number].steps;
  let found = steps[0] ?? -1;
  for (let k = 0; k < steps.length; k += 2) if (world.steps[steps[k + 1]] === 'sent' && times[steps[k]] <= mark.t + 1e3) found = steps[k];
  return found;
}

let drag = null;
const local = e => { const box = chart.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; };
chart.addEventListener('pointerdown', e => { drag = { x: local(e)[0], from: view.from, to: view.to, moved: false }; chart.setPointerCapture(e.pointerId); });
chart.addEventListener('pointermove', e => {
  const [px, py] = local(e);
  if (drag) {
    if (Math.abs(px - drag.x) > 3) drag.moved = true;
    if (drag.moved) {
      const by = (px - drag.x) / (size.w - GUTTER - 12) * (drag.to - drag.from);
      view.from = drag.from - by; view.to = drag.to - by;
      $('tip').hidden = true;
      soon();
    }
    return;
  }
  const { event, mark } = px > GUTTER ? near(px, py) : { event: -1 };
  const tip = $('tip');
  tip.hidden = event < 0;
  if (event >= 0) {
    tip.textContent = mark ? `${nameOf(mark.number)} ${S[world.records[mark.number].key]}${mark.offset === undefined ? '' : ' @' + mark.offset}` : `${seconds(times[event])} ${what(event)} ${text(event)}`.slice(0, 200);
    tip.style.left = Math.min(px + 12, size.w - 300) + 'px';
    tip.style.top = py + 14 + chart.scrollTop + 'px';
  }
});
chart.addEventListener('pointerup', e => {
  const moved = drag?.moved; drag = null;
  if (moved) { remember(); return; }
  const [px, py] = local(e);
  if (px < GUTTER) return;
  const { event, record } = near(px, py);
  if (event >= 0) select(event, record);
  else { select(-1); view.at = Math.max(0, Math.min(end, timeAt(px))); }
  show();
});
chart.addEventListener('pointerleave', () => { $('tip').hidden = true; });
chart.addEventListener('wheel', e => {
  if (e.shiftKey) return;
  e.preventDefault();
  if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
    const by = e.deltaX / size.w * (view.to - view.from); view.from += by; view.to += by;
  } else zoom(e.deltaY > 0 ? 1.2 : 1 / 1.2, timeAt(Math.max(GUTTER, local(e)[0])));
  soon();
}, { passive: false });
chart.addEventListener('dblclick', e => { zoom(.25, timeAt(local(e)[0])); soon(); });
chart.addEventListener('scroll', () => soon());
let waiting = false;
function soon() { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } }

$('filter').addEventListener('input', e => { setFilter(e.target.value); show(); });
$('fit').onclick = () => { fit(); show(); };
$('close-up').onclick = () => { closeUp(); show(); };
$('theme').onclick = toggleTheme;
$('ask').onclick = () => $('help').showModal();
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.target === $('filter')) { if (e.key === 'Escape') { setFilter(''); $('filter').blur(); show(); } else if (e.key === 'Enter') $('filter').blur(); return; }
  if ($('help').open) return;
  const keys = {
    ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => stepWay(1), ArrowUp: () => stepWay(-1),
    '/': () => $('filter').focus(), '?': () => $('help').showModal(), t: toggleTheme, z: () => { closeUp(); show(); },
    '+': () => { zoom(.5, view.at); show(); }, '=': () => { zoom(.5, view.at); show(); }, '-': () => { zoom(2, view.at); show(); }, 0: () => { fit(); show(); },
    Escape: () => { if (view.event >= 0) select(-1); else setFilter(''); show(); },
  };
  const act = keys[e.key];
  if (act) { e.preventDefault(); act(); }
});
window.addEventListener('resize', () => { resize(); draw(); });
window.addEventListener('hashchange', () => { if (!silent) recall(); });

showHead();
resize();
fit();
recall();
