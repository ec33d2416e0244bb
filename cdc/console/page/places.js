// Where the relay stands along the server's binlog files, and how far what it needs is from being deleted.
import {$, el, say, show} from './dom.js';
import {ago, bytes, clock, count, seconds, words} from './format.js';

const marks = [{key: 'checkpoint', name: 'Checkpoint'}, {key: 'confirmed', name: 'Confirmed'}, {key: 'read', name: 'Read'}];

const cells = {};

export function draw() {
  const strip = $('strip');
  strip.append(el('div', {class: 'behind'}), el('div', {class: 'ahead'}), el('div', {class: 'edges'}));
  for (const m of marks) {
    m.node = el('div', {class: 'mark ' + m.key});
    strip.append(m.node);
  }
  for (const [key, name] of [...marks.map(m => [m.key, m.name]), ['end', 'End of the binlog']]) {
    const row = [['file', 'mono'], ['offset', 'num'], ['rest', 'num'], ['when', 'thin']].map(([column, look]) => el('td', {class: column + ' ' + look}, '–'));
    $('places').append(el('tr', {}, el('th', {scope: 'row'}, el('i', {class: 'key ' + key, 'aria-hidden': 'true'}), name), ...row));
    cells[key] = row;
  }
}

export function update(position, along, now) {
  const share = at => along.bytes ? (100 * at / along.bytes).toFixed(3) + '%' : '0%';
  for (const m of marks) {
    const at = along[m.key];
    m.node.hidden = at === undefined;
    if (at !== undefined) m.node.style.left = share(at);
    row(m.key, position[m.key], at === undefined ? null : along.bytes - at);
  }
  const {source, read} = position; // the source was asked up to a second ago: what was read since lies behind that
  row('end', read.file === source.file && read.pos > source.pos ? read : source, 0);
  say(cells.checkpoint[3], position.checkpoint.saved_at ? 'saved ' + ago(position.checkpoint.saved_at, now) : position.checkpoint.file ? 'from before this process' : 'none yet');
  say(cells.read[3], position.read.committed_at ? 'committed ' + ago(position.read.committed_at, now) : '');
  say(cells.confirmed[3], position.confirmed.committed_at ? 'committed ' + ago(position.confirmed.committed_at, now) : '');
  say(cells.end[3], position.source.asked_at ? 'asked ' + ago(position.source.asked_at, now) : 'not asked yet');
  const saved = along.checkpoint ?? 0;
  show($('strip').children[1], along.bytes > 0);
  $('strip').children[0].style.width = share(saved);
  $('strip').children[1].style.left = share(saved);
  edges(along, share);
  say('runway', runway(position, along));
  show('repair', Boolean(position.repair));
  if (position.repair) say('repair', repaired(position.repair, now));
}

function row(key, place, rest) {
  const [file, offset, left] = cells[key];
  say(file, place.file || '–');
  say(offset, place.file ? count(place.pos) : '–');
  say(left, !place.file ? '–' : rest === null ? 'file is gone' : bytes(rest));
}

function edges(along, share) {
  const box = $('strip').children[2];
  while (box.children.length > along.edges.length) box.lastChild.remove();
  along.edges.forEach((at, i) => {
    if (!box.children[i]) box.append(el('span', {}));
    box.children[i].style.left = share(at);
  });
}

function runway(p, along) {
  if (!along.bytes) return 'The server has not said yet which files it has.';
  const files = count(along.files) + (along.files === 1 ? ' file, ' : ' files, ') + bytes(along.bytes) + '. ';
  if (!p.checkpoint.file) return files + 'No checkpoint is saved yet.';
  if (along.checkpoint === undefined) return files + 'The file of the checkpoint is not among them.';
  const until = p.runway.seconds_until_purge;
  return files + 'Runway to the purge: ' + bytes(p.runway.bytes_behind_purge) +
    (until === undefined || until === null ? '' : ', and ' + seconds(until) + ' by the server’s retention') + '.';
}

function repaired(r, now) {
  const rows = count(r.rows) + ' rows of the outbox table' + (r.since ? ' created since ' + clock(r.since) : '');
  if (!r.at) return 'A gap is being repaired (' + words(r.reason) + '): ' + rows + ' sent so far.';
  return 'A gap was repaired ' + ago(r.at, now) + ' (' + words(r.reason) + '): ' + rows + ' were sent, some of them perhaps a second time.';
}
