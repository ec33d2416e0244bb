// Puts the parts of the page together: what the relay tells each second goes to each of them.
import {$, el, mark, say, show} from './dom.js';
import {ago, bytes, clock, count, rate, seconds, tail} from './format.js';
import {describe} from './words.js';
import {listen} from './live.js';
import {change} from './admin.js';
import * as charts from './charts.js';
import * as path from './path.js';
import * as places from './places.js';
import * as stuck from './stuck.js';

const seen = {position: null, binlog: null, sample: null, worker: null, hello: null};
let skew = 0; // of the relay's clock against ours, in milliseconds
let applied = {total: null, at: 0, rate: 0};
let events = [];
let frozen = false;
let lostAt = 0;

const now = () => Date.now() + skew;

function render() {
  const p = seen.position;
  if (!p) return;
  renderState(p);
  renderTiles(p);
  path.update({...seen, applied: applied.rate});
  if (seen.binlog) places.update(p, seen.binlog, now());
  renderMembers(p);
  renderTotals(p.totals);
  stuck.look('quarantine', String(p.totals.quarantined ?? 0));
  const worker = seen.worker;
  if (!worker || worker.reason === 'not_asked_yet') return;
  if (worker.connected) stuck.look('dead', worker.stats.messages.dead + ' ' + (worker.stats.messages.dropped ?? 0));
  else stuck.absent('dead', 'worker_' + worker.reason);
}

function renderState(p) {
  const told = describe(p, charts.drift());
  mark('state', 'tone', told.tone);
  $('lamp-sign').setAttribute('d', told.sign);
  say('state-title', told.title);
  say('state-says', told.says);
  say('state-mend', told.mend);
  show('state-mend', Boolean(told.mend));
  say('state-detail', p.detail || '');
  show('state-detail', Boolean(p.detail));
  who(p.state);
  const admin = Boolean(seen.hello && seen.hello.admin);
  const pausable = admin && p.leader.me && p.state !== 'halted' && p.state !== 'draining';
  show('pause', pausable && p.state !== 'paused');
  show('resume', admin && p.leader.me && p.state === 'paused');
  say('relay-name', p.relay);
  const flavor = p.source.flavor === 'mariadb' ? 'MariaDB ' : 'MySQL ';
  say('source-name', p.source.version ? flavor + p.source.version.split('-')[0] + (p.source.gtid_mode ? ', GTIDs on' : ', no GTIDs') : 'source not seen yet');
  const title = told.title + ' · ' + p.relay + ' · Tailbox';
  if (document.title !== title) document.title = title;
}

let asked = '';

// who tells whose pause it is, and why, by the audit.
async function who(state) {
  if (state === asked) return;
  asked = state;
  show('state-who', false);
  if (state !== 'paused') return;
  try {
    const {entries} = await (await fetch('audit?limit=20')).json();
    const pause = entries.find(entry => entry.action === 'pause');
    if (!pause || asked !== 'paused') return;
    say('state-who', 'Paused at ' + clock(pause.at) + ' by ' + pause.actor + (pause.why ? ': ' + pause.why : ', who did not say why') + '.');
    show('state-who', true);
  } catch { /* the audit is in MySQL, which may be away */ }
}

function renderTiles(p) {
  const s = seen.sample;
  const standby = p.state === 'standby';
  say('behind', standby ? '–' : seconds(p.lag.seconds));
  say('behind-note', standby ? 'the leader knows' : p.lag.bytes || p.lag.in_flight
    ? bytes(p.lag.bytes) + ' of binlog, ' + count(p.lag.in_flight) + ' in flight' : 'every commit is confirmed');
  mark('tile-behind', 'tone', p.lag.seconds > 60 ? 'bad' : p.lag.seconds > 10 ? 'warn' : 'plain');
  if (s) {
    say('throughput', rate(s.confirmed_per_second[0]));
    const [p50, p99] = [s.latency_p50_seconds[0], s.latency_p99_seconds[0]];
    if (p50 !== null) {
      say('latency', seconds(p50));
      say('latency-note', 'half of the events; 99 % within ' + seconds(p99));
    }
  }
  say('throughput-note', count(p.totals.confirmed) + ' confirmed since the start');
  renderStuck(p);
}

function renderStuck(p) {
  const {quarantine, dead} = stuck.totals();
  const held = p.reason === 'unroutable' || p.reason === 'refused' ? p.lag.in_flight : 0;
  const parts = [];
  if (held) parts.push(count(held) + ' held back');
  if (quarantine) parts.push(count(quarantine) + ' in quarantine');
  if (dead) parts.push(count(dead) + (dead === 1 ? ' dead letter' : ' dead letters'));
  const unknown = quarantine === null && dead === null;
  if (p.state === 'halted') {
    say('stuck', 'all');
    say('stuck-note', ['the relay waits for a person', ...parts].join(', '));
    mark('tile-stuck', 'tone', 'bad');
    show('held', false);
    return;
  }
  say('stuck', parts.length ? count(held + (quarantine || 0) + (dead || 0)) : unknown ? '–' : '0');
  say('stuck-note', parts.length ? parts.join(', ') : unknown ? 'not known at the moment' : 'nothing waits for a person');
  mark('tile-stuck', 'tone', parts.length ? 'warn' : 'plain');
  const waiting = held > 0 && p.waiting;
  show('held', Boolean(waiting));
  if (waiting) {
    say('held-type', waiting.type);
    say('held-id', waiting.event_id);
    say('held-why', p.reason === 'unroutable' ? 'No queue is bound to the exchange for its routing key ' + waiting.routing_key + '.'
      : 'RabbitMQ refuses it; its routing key is ' + waiting.routing_key + '.');
    say('held-facts', 'committed ' + ago(waiting.committed_at, now()) + ', at ' + waiting.position + (held > 1 ? '; ' + count(held - 1) + ' more read behind it' : ''));
  }
}

function renderMembers(p) {
  const members = p.members && p.members.length ? p.members : p.leader.id ? [{id: p.leader.id, state: p.leader.me ? p.state : 'leads'}] : [];
  const key = JSON.stringify([members.map(m => [m.id, m.state]), p.leader.id, p.leader.me]);
  const list = $('members');
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...members.map(m => el('li', {},
      el('span', {class: 'role', 'data-tone': m.id === p.leader.id ? 'ok' : 'idle'}, m.id === p.leader.id ? 'leads' : m.state === 'standby' ? 'stands by' : m.state),
      el('code', {title: m.id}, m.id), el('small', {class: 'thin'}, ''))));
    if (!members.length) list.append(el('li', {class: 'thin'}, 'Nobody leads at the moment.'));
  }
  members.forEach((m, i) => {
    const note = list.children[i].lastChild;
    const parts = [m.id === p.leader.id && p.leader.epoch ? 'epoch ' + p.leader.epoch : '', m.seen_at ? 'heard of ' + ago(m.seen_at, now()) : ''];
    say(note, parts.filter(Boolean).join(' · '));
  });
}

const totalNames = {read: 'read', published: 'published', confirmed: 'confirmed', returned: 'returned', parked: 'parked', nacked: 'refused',
  quarantined: 'quarantined', repaired: 'repaired', reconnects: 'reconnects'};

function renderTotals(totals) {
  const list = $('totals');
  for (const [key, name] of Object.entries(totalNames)) {
    if (totals[key] === undefined) continue;
    let value = list.querySelector('[data-total="' + key + '"]');
    if (!value) {
      value = el('dd', {'data-total': key});
      list.append(el('div', {}, el('dt', {}, name), value));
    }
    say(value, count(totals[key]));
  }
}

function renderEvents(leftOut) {
  if (frozen) return;
  say('events-note', leftOut ? 'Of many, some: ' + count(leftOut) + ' more in the last second.' : 'Ids only: a payload is never shown.');
  $('events').replaceChildren(...events.slice(0, 50).map(e => el('article', {class: 'event'},
    el('time', {datetime: e.confirmed_at}, clock(e.confirmed_at)),
    el('b', {}, e.type),
    el('span', {class: 'routing', title: 'routing key'}, e.routing_key),
    el('code', {title: e.id}, tail(e.id)),
    el('code', {class: 'thin', title: 'place in the binlog'}, e.position),
    el('span', {class: 'took', title: 'from commit to confirm'}, e.parked ? 'parked' : e.repaired ? 'repaired' : seconds(e.latency_seconds)))));
  if (!events.length) $('events').append(el('p', {class: 'empty'}, 'No event yet. POST a customer to the api, or insert a row into the outbox table.'));
}

const on = {
  hello(document) {
    seen.hello = document;
    stuck.allow(document.admin);
    show('no-token', !document.admin);
    skew = Date.parse(document.now) - Date.now();
    fetch('history').then(answer => answer.json()).then(history => charts.load(history, document.keep_seconds)).catch(() => {});
  },
  position(document) { seen.position = document; },
  binlog(document) { seen.binlog = document; },
  worker(document) {
    if (document.connected) {
      const total = document.stats.messages.applied;
      const at = now();
      if (applied.total === null || total < applied.total) applied = {total, at, rate: 0};
      else if (total !== applied.total || at - applied.at > 4000) applied = {total, at, rate: (total - applied.total) / Math.max(1, (at - applied.at) / 1000)};
    }
    seen.worker = document;
    if (!seen.sample) render(); // the greeting ends here
  },
  sample(document) {
    seen.sample = document;
    charts.add(document);
    render();
  },
  published(document) {
    const known = new Set(document.events.map(e => e.id));
    events = document.events.concat(events.filter(e => !known.has(e.id))).slice(0, 50);
    renderEvents(document.left_out);
  },
};

function line(state) {
  document.body.dataset.line = state;
  if (state === 'open') {
    mark('link', 'tone', 'ok');
    say('link-says', 'live');
    lostAt = 0;
    return;
  }
  if (!lostAt) lostAt = Date.now();
  mark('link', 'tone', 'bad');
  say('link-says', 'no answer since ' + clock(lostAt) + ', trying again');
  if (seen.position) document.title = 'No answer · ' + seen.position.relay + ' · Tailbox';
}

$('pause').addEventListener('click', () => change({method: 'POST', path: 'pause', title: 'Pause the relay?', go: 'Pause', done: () => 'Paused.',
  says: 'Nothing is sent until somebody resumes it, in this process and in those that take over. Events wait in the binlog.'}));
$('resume').addEventListener('click', () => change({method: 'POST', path: 'resume', title: 'Resume the relay?', go: 'Resume', done: () => 'Resumed.',
  says: 'It goes on where it stopped.'}));
$('freeze').addEventListener('click', () => {
  frozen = !frozen;
  $('freeze').setAttribute('aria-pressed', String(frozen));
  say('freeze', frozen ? 'Go on' : 'Hold still');
  renderEvents(0);
});

path.draw();
places.draw();
charts.make();
stuck.watch(() => { if (seen.position) renderStuck(seen.position); });
renderEvents(0);
listen(on, line);
