// The picture of an event's path: six stations and the ways between them, with live numbers on each.
import {$, el, mark, say, svg} from './dom.js';
import {bytes, count, rate, words} from './format.js';

const drawings = {
  mysql: ['M4 6c0-1.700 3.600-3 8-3s8 1.300 8 3-3.600 3-8 3-8-1.300-8-3z', 'M4 6v12c0 1.700 3.600 3 8 3s8-1.300 8-3V6', 'M4 12c0 1.700 3.600 3 8 3s8-1.300 8-3'],
  binlog: ['M6 3h9l4 4v14H6z', 'M15 3v4h4', 'M9 11h7M9 14h7M9 17h4'],
  relay: ['M3 12h5l2-5 4 10 2-5h5'],
  exchange: ['M3 12h6', 'M9 12l8-6M9 12h9M9 12l8 6', 'M15.500 4.500L18 5.500 17.500 8M16 10l2.500 2-2.500 2M17.500 16l.5 2.500-2.500 1'],
  queues: ['M3 5h18v4H3zM3 10h18v4H3zM3 15h18v4H3z', 'M6.500 7h.1M6.500 12h.1M6.500 17h.1'],
  worker: ['M12 8.500a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7z', 'M12 3v3M12 18v3M3 12h3M18 12h3M5.600 5.600l2.100 2.100M16.300 16.300l2.100 2.100M18.400 5.600l-2.100 2.100M7.700 16.300l-2.100 2.100'],
};

const names = {mysql: 'MySQL', binlog: 'Binlog', relay: 'Relay', exchange: 'Exchange', queues: 'Queues', worker: 'Worker'};

const stations = {};
const ways = {};

export function draw() {
  const list = $('path');
  for (const key of Object.keys(names)) {
    if (list.children.length) {
      const way = svg('way', 'M0 12h24');
      way.setAttribute('preserveAspectRatio', 'none');
      ways[key] = el('li', {class: 'between', 'aria-hidden': 'true'}, way);
      list.append(ways[key]);
    }
    const name = el('span', {class: 'name'}, names[key]);
    const value = el('b', {id: 'at-' + key}, '–');
    const note = el('small', {}, ' ');
    const item = el('li', {class: 'station'}, svg('sign', ...drawings[key]), el('div', {class: 'label'}, name, note), value);
    stations[key] = {item, name, value, note};
    list.append(item);
  }
}

function put(key, {name, value, note, tone}) {
  const s = stations[key];
  if (name) say(s.name, name);
  say(s.value, value);
  say(s.note, note);
  mark(s.item, 'tone', tone || 'plain');
}

// flow: moving, still or broken. A way is named after the station that it leads to.
const flow = (key, how) => mark(ways[key], 'flow', how);

const brokerNotes = {broker_unreachable: 'does not answer', broker_alarm: 'takes no messages', topology: 'exchange is missing', refused: 'refuses a message'};

export function update({position: p, sample, worker, applied, hello}) {
  const rates = sample || {read_per_second: [0], published_per_second: [0], confirmed_per_second: [0]};
  const [read, sent] = [rates.read_per_second[0], rates.published_per_second[0]];
  const away = p.reason === 'source_unreachable';
  const noBroker = p.reason in brokerNotes;
  const leads = p.leader.me;

  const flavor = p.source.flavor === 'mariadb' ? 'MariaDB' : 'MySQL';
  put('mysql', {name: flavor, value: (p.source.version || '–').split('-')[0], tone: away ? 'bad' : 'plain',
    note: away ? 'does not answer' : !p.source.version ? 'not seen yet' : p.source.gtid_mode ? 'GTIDs on' : 'no GTIDs'});
  put('binlog', {value: bytes(p.lag.bytes), note: 'not confirmed yet', tone: 'plain'});
  put('relay', {value: count(p.lag.in_flight), note: p.state === 'halted' || p.state === 'paused' ? p.state : leads ? 'in flight' : 'not the leader',
    tone: p.state === 'halted' ? 'bad' : p.state === 'paused' ? 'warn' : 'plain'});
  const unsent = p.totals.returned + p.totals.nacked;
  put('exchange', {value: rate(sent), note: noBroker ? brokerNotes[p.reason] : hello ? hello.exchange : 'published', tone: noBroker ? 'bad' : 'plain'});
  flow('binlog', away ? 'broken' : read > 0 ? 'moving' : 'still');
  flow('relay', away || p.state === 'halted' ? 'broken' : read > 0 ? 'moving' : 'still');
  flow('exchange', noBroker || p.state === 'halted' ? 'broken' : sent > 0 ? 'moving' : 'still');
  flow('queues', p.reason === 'unroutable' ? 'broken' : sent > 0 && !noBroker ? 'moving' : 'still');
  behind(worker, applied, p.reason === 'unroutable', unsent);
}

// behind shows what comes behind the exchange, which only a worker knows.
function behind(worker, applied, unroutable, returned) {
  const lost = returned ? count(returned) + ' returned or refused' : '';
  if (!worker || !worker.connected) {
    const why = !worker || worker.reason === 'not_asked_yet' ? 'asking' : worker.reason === 'not_configured' ? 'not connected' : 'does not answer';
    put('queues', {value: unroutable ? 'none' : '–', note: unroutable ? 'no binding' : lost || why, tone: unroutable ? 'bad' : 'plain'});
    put('worker', {value: '–', note: why, tone: why === 'does not answer' ? 'bad' : 'plain'});
    flow('worker', why === 'does not answer' ? 'broken' : 'still');
    return;
  }
  const s = worker.stats;
  const working = s.state === 'consuming';
  const waiting = s.waiting_gaps ? count(s.waiting_gaps) + ' wait for an earlier one' : 'delivered, not done';
  put('queues', {value: unroutable ? 'none' : count(s.in_flight), note: unroutable ? 'no binding' : waiting, tone: unroutable ? 'bad' : 'plain'});
  put('worker', {value: rate(applied), note: working ? 'applied' : words(s.reason || s.state), tone: working ? 'plain' : 'bad'});
  flow('worker', !working ? 'broken' : applied > 0 ? 'moving' : 'still');
}
