// What is stuck: the quarantine of the relay and the dead letters of the worker, each with what to do about it.
import {$, el, say, show} from './dom.js';
import {clock, count, tail, words} from './format.js';
import {change} from './admin.js';

const pause = 10000; // between two looks at a list that keeps changing
const lists = {
  quarantine: {path: 'quarantine', node: 'quarantine', seen: null, total: null, asked: 0, due: false},
  dead: {path: 'worker/dead-letters?limit=50', node: 'dead', seen: null, total: null, asked: 0, due: false},
};
let onChange = () => {};
let allowed = false; // to change the quarantine: the relay has a token

export const allow = yes => { allowed = yes; };

export function watch(changed) {
  onChange = changed;
  $('redrive-all').addEventListener('click', () => redrive({all: true}, 'all dead letters'));
}

export const totals = () => ({quarantine: lists.quarantine.total, dead: lists.dead.total});

// absent says that there is no such list here.
export function absent(name, code) {
  const list = lists[name];
  if (list.seen === code) return;
  list.seen = code;
  fill(list, name, unavailable(name, {code}));
}

const offset = Math.random() * 60000; // so that many open pages do not ask all at once

// look asks for a list when the counts say that it has changed, and each minute, because others may have emptied it.
export function look(name, counts) {
  if (document.hidden) return;
  const list = lists[name];
  const version = counts + ' ' + Math.floor((Date.now() + offset) / 60000);
  if (list.seen === version) return;
  list.seen = version;
  ask(list, name);
}

async function ask(list, name) {
  const wait = list.asked + pause - Date.now();
  if (wait > 0) {
    if (!list.due) setTimeout(() => { list.due = false; ask(list, name); }, wait);
    list.due = true;
    return;
  }
  list.asked = Date.now();
  await refresh(name);
}

async function refresh(name) {
  const list = lists[name];
  let answer, document = {};
  try {
    answer = await fetch(list.path);
    document = await answer.json();
  } catch {
    return fill(list, name, 'It cannot be asked for at the moment.');
  }
  if (!answer.ok) return fill(list, name, unavailable(name, document));
  const entries = document.events || document.dead_letters || [];
  list.total = document.total ?? entries.length;
  fill(list, name, '', entries);
}

function unavailable(name, problem) {
  if (problem.code === 'worker_not_configured') return 'Not connected: set WORKER_URL to see the worker’s dead letters here.';
  if (problem.code === 'worker_unreachable') return 'The worker does not answer.';
  return problem.detail || 'It cannot be asked for at the moment.';
}

function fill(list, name, problem, entries = []) {
  if (problem) list.total = null;
  const rows = entries.map(entry => name === 'dead' ? letter(entry) : quarantined(entry));
  const node = $(list.node);
  const held = node.contains(document.activeElement);
  node.replaceChildren(...rows);
  if (problem || !rows.length) node.append(el('p', {class: 'empty'}, problem || 'Empty.'));
  if (list.total > rows.length) node.append(el('p', {class: 'empty'}, 'and ' + count(list.total - rows.length) + ' more'));
  if (held) node.focus();
  say(name + '-count', list.total === null ? '' : count(list.total));
  $(name + '-count').dataset.some = String(list.total > 0);
  if (name === 'dead') show('redrive-all', list.total > 1);
  onChange();
}

function item(title, id, facts, reason, ...buttons) {
  return el('article', {class: 'item'},
    el('div', {class: 'what'}, el('b', {}, title), ' ', el('code', {title: id}, tail(id))),
    el('p', {class: 'why'}, reason),
    el('p', {class: 'thin'}, facts.filter(Boolean).join(' · ')),
    el('div', {class: 'acts'}, ...buttons));
}

function button(text, className, act) {
  const node = el('button', {type: 'button', class: className}, text);
  node.addEventListener('click', act);
  return node;
}

function quarantined(e) {
  const name = e.type + ' ' + tail(e.event_id);
  const retry = button('Retry', '', () => act('POST', 'quarantine/' + e.id + '/retry', 'Retry ' + name + '?',
    'The relay tries to publish it once more. It comes after everything that was published meanwhile.', 'Retry', false, 'Published.'));
  const drop = button('Drop', 'danger', () => act('DELETE', 'quarantine/' + e.id, 'Drop ' + name + '?',
    'The event will never be published. This cannot be taken back.', 'Drop it', true, 'Dropped.'));
  return item(e.type || '(no type)', e.event_id,
    [e.aggregate_type, 'at ' + e.source_position, e.quarantined_at && 'since ' + clock(e.quarantined_at), e.attempts && count(e.attempts) + ' retries'],
    e.reason, ...(allowed ? [retry, drop] : []));
}

function letter(d) {
  const name = (d.type || 'message') + ' ' + tail(d.message_id);
  const follows = d.blocked_by ? 'It only follows ' + tail(d.blocked_by) + ', which failed before it.' : words(d.reason || 'no reason was given');
  const retry = button('Retry', '', () => redrive({message_id: d.message_id}, name));
  const drop = button('Drop', 'danger', () => dropLetter(d.message_id, name));
  return item(d.type || '(no type)', d.message_id,
    [d.aggregate_type, d.aggregate_version && 'version ' + d.aggregate_version, d.failed_at && 'since ' + clock(d.failed_at), d.attempts && count(d.attempts) + ' attempts'],
    follows, ...(d.blocked_by ? [] : [retry, drop]));
}

async function act(method, path, title, says, go, danger, done) {
  if (await change({method, path, title, says, go, danger, done: () => done})) await refresh('quarantine');
}

async function redrive(which, name) {
  const done = answer => count(answer.redriven) + ' sent back to the queue' + (answer.remaining ? ', ' + count(answer.remaining) + ' remain' : '') + '.';
  if (await change({method: 'POST', path: 'worker/dead-letters/redrive', body: which, title: 'Retry ' + name + '?', go: 'Retry', done, withWhy: false,
    says: 'What is sent back to the queue counts as new. What was applied already is not applied again.'})) await refresh('dead');
}

async function dropLetter(id, name) {
  if (await change({method: 'POST', path: 'worker/dead-letters/drop', body: {message_id: id}, title: 'Drop ' + name + '?', go: 'Drop it', danger: true,
    done: () => 'Given up; what followed it goes on.', withWhy: false,
    says: 'The event will never be applied. What waits behind it of the same aggregate goes on without it. This cannot be taken back.'})) await refresh('dead');
}
