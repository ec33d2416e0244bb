// The three charts over the history, drawn by uPlot. All of them share one axis of time and one cursor.
import {$, el, mark, say} from './dom.js';
import {bytes, clock, count, rate, seconds} from './format.js';

/* global uPlot */

const columns = ['at', 'state', 'lag_seconds', 'lag_bytes', 'read_per_second', 'published_per_second', 'confirmed_per_second', 'latency_p50_seconds', 'latency_p99_seconds'];
const data = Object.fromEntries(columns.map(name => [name, []]));
let states = [];
let keep = 900;
const charts = [];

const color = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();

// working are the states that are not shaded.
const working = ['streaming', 'snapshot', 'repairing', 'standby'];

// shade draws a band behind each stretch of time in which the relay did not work.
function shade(u) {
  const {ctx} = u;
  const end = data.at.length - 1;
  ctx.save();
  ctx.fillStyle = color('shade');
  for (let i = 0; i <= end; i++) {
    if (working.includes(states[data.state[i]])) continue;
    const from = i;
    while (i < end && !working.includes(states[data.state[i + 1]])) i++;
    const left = Math.max(u.valToPos(data.at[from] - 0.5, 'x', true), u.bbox.left);
    const right = Math.min(u.valToPos(data.at[i] + 0.5, 'x', true), u.bbox.left + u.bbox.width);
    if (right > left) ctx.fillRect(left, u.bbox.top, Math.max(right - left, devicePixelRatio), u.bbox.height);
  }
  ctx.restore();
}

// kinds say what each chart shows: the rows are [column, name, colour, style].
const kinds = [
  {id: 'lag', text: seconds, floor: 1, rows: [['lag_seconds', 'oldest unconfirmed commit', 'series-1', {area: true}]]},
  {id: 'rate', text: rate, floor: 10, rows: [
    ['read_per_second', 'read', 'series-3', {width: 1}],
    ['published_per_second', 'published', 'series-2', {dash: [4, 3]}],
    ['confirmed_per_second', 'confirmed', 'series-1', {area: true}]]},
  {id: 'latency', text: seconds, floor: 0.01, log: true, rows: [
    ['latency_p99_seconds', '99 %', 'series-2', {dots: true}],
    ['latency_p50_seconds', '50 %', 'series-1', {dots: true}]]},
];

function options(kind, width) {
  const axis = {stroke: () => color('muted'), grid: {stroke: () => color('grid'), width: 1}, ticks: {show: false}, font: '11px system-ui, sans-serif'};
  const now = () => data.at.length ? data.at[data.at.length - 1] : Date.now() / 1000;
  return {
    width, height: 150, padding: [8, 20, 0, 0], legend: {show: false},
    cursor: {sync: {key: 'tailbox'}, drag: {x: false, y: false}, points: {size: 6}},
    scales: {
      x: {time: true, range: () => [now() - keep, now()]},
      y: kind.log
        ? {distr: 3, range: (u, low, high) => [1e-3, 10 ** Math.ceil(Math.log10(Math.max(high || 0, kind.floor * 1.01)))]}
        : {range: (u, low, high) => [0, Math.max(kind.floor, (high || 0) * 1.1)]},
    },
    axes: [
      {...axis, space: 70, size: 26, values: (u, splits) => splits.map(s => clock(s * 1000).slice(0, 5))},
      kind.log
        ? {...axis, size: 52, gap: 4, splits: powers, filter: (u, splits) => splits, values: (u, splits) => splits.map(s => s < 1 ? count(s * 1000) + ' ms' : count(s) + ' s')}
        : {...axis, size: 52, gap: 4, space: 32, ...(kind.id === 'lag' ? {incrs: steps} : {}), values: (u, splits) => splits.map(kind.id === 'rate' ? count : stretch)},
    ],
    series: [{}, ...kind.rows.map(([, , tint, style]) => ({
      stroke: () => color(tint), width: style.width || 1.5, dash: style.dash, spanGaps: false,
      fill: style.area ? () => color(tint + '-area') : undefined,
      points: {show: Boolean(style.dots) && undefined, size: 3},
    }))],
    hooks: {drawClear: [shade], setCursor: [u => legend(kind, u.cursor.idx)]},
  };
}

// steps are between the marks of an axis of time: what a clock has.
const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800];

// stretch is a mark of an axis of time, which is short.
function stretch(s) {
  if (s > 0 && s < 1) return count(s * 1000) + ' ms';
  if (s < 60 || s % 60) return Math.round(s * 10) / 10 + ' s';
  return s < 7200 ? count(s / 60) + ' min' : count(s / 3600) + ' h';
}

// powers are the powers of ten between two values.
function powers(u, axis, low, high) {
  const list = [];
  for (let p = Math.ceil(Math.log10(low)); 10 ** p <= high * 1.001; p++) list.push(10 ** p);
  return list;
}

// values of a chart. A logarithm needs more than nothing.
const rows = kind => [data.at, ...kind.rows.map(([column]) => kind.log ? data[column].map(v => v === null ? null : Math.max(v, 1e-3)) : data[column])];

// legend tells the values at the cursor, or those of now.
function legend(kind, at) {
  const last = data.at.length - 1;
  const i = at === null || at === undefined ? last : at;
  kind.rows.forEach(([column], n) => {
    const value = i >= 0 ? data[column][i] : null;
    const text = value === null || value === undefined ? '–' : kind.text(value);
    say(kind.values[n], text + (kind.id === 'lag' && value !== null && i >= 0 && data.lag_bytes[i] > 0 ? ', ' + bytes(data.lag_bytes[i]) : ''));
  });
}

export function make() {
  for (const kind of kinds) {
    kind.values = kind.rows.map(([, name, tint]) => {
      const value = el('b', {}, '–');
      const entry = el('span', {}, el('i', {class: tint, 'aria-hidden': 'true'}), name + ' ', value);
      $('legend-' + kind.id).append(entry);
      return value;
    });
    const place = $('chart-' + kind.id);
    const chart = new uPlot(options(kind, Math.max(place.clientWidth, 200)), rows(kind), place);
    charts.push({kind, chart, place});
    new ResizeObserver(() => chart.setSize({width: Math.max(place.clientWidth, 200), height: 150})).observe(place);
  }
  document.addEventListener('theme', () => charts.forEach(({chart}) => chart.redraw(false, true)));
}

// load takes the whole history; add takes what came since.
export function load(history, seconds) {
  keep = seconds;
  states = history.states;
  const from = history.at.length ? history.at[history.at.length - 1] : 0;
  const later = data.at.findIndex(at => at > from);
  for (const name of columns) data[name] = history[name].concat(later < 0 ? [] : data[name].slice(later));
  drawAll();
}

export function add(sample) {
  if (!states.length) states = sample.states;
  for (const name of columns) data[name].push(...sample[name]);
  const old = data.at.findIndex(at => at >= data.at[data.at.length - 1] - keep);
  if (old > 0) for (const name of columns) data[name].splice(0, old);
  drawAll();
}

function drawAll() {
  for (const {kind, chart, place} of charts) {
    chart.setData(rows(kind));
    legend(kind, chart.cursor.idx);
    describe(kind, place);
  }
}

// describe says in words what a chart shows, for who cannot see it; now and then, so that it can be read.
function describe(kind, place) {
  const last = data.at.length - 1;
  if (last < 0 || place.dataset.said && data.at[last] - Number(place.dataset.said) < 10) return;
  mark(place, 'said', String(data.at[last]));
  place.setAttribute('aria-label', kind.rows.map(([column, name]) => {
    const values = data[column].filter(v => v !== null);
    if (!values.length) return name + ': nothing yet';
    return name + ': now ' + kind.text(data[column][last] ?? 0) + ', at most ' + kind.text(Math.max(...values)) + ' in 15 minutes';
  }).join('; '));
}

// drift tells where a backlog goes, by the last half minute.
export function drift() {
  const last = data.at.length - 1, before = Math.max(0, last - 30);
  if (last - before < 5) return '';
  const fewer = data.lag_bytes[before] - data.lag_bytes[last], took = data.at[last] - data.at[before];
  if (fewer <= 0) return 'It does not get less at the moment.';
  return 'At this speed it has caught up in ' + seconds(data.lag_bytes[last] / (fewer / took)) + '.';
}
