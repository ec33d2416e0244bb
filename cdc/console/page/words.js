// What each state and each reason means, and what mends it, for one who has never seen a relay. A test holds the names
// against those that the relay has.

// Tones: ok, warn, bad, idle, busy. Signs are drawn on the lamp.
export const states = {
  starting: {tone: 'busy', title: 'Starting', says: 'The relay has not seen yet who leads.'},
  standby: {tone: 'idle', title: 'Standing by', says: 'Another instance relays. This one takes over when that one falls silent.'},
  snapshot: {tone: 'busy', title: 'Sending what the table held', says: 'The relay begins with the events that the outbox table held before the place in the binlog where it goes on.'},
  repairing: {tone: 'busy', title: 'Repairing a gap', says: 'Part of the binlog is gone, so the relay sends what it missed from the outbox table. Some events may come twice.'},
  streaming: {tone: 'ok', title: 'Working', says: 'Each event goes to RabbitMQ moments after its transaction is committed.'},
  blocked: {tone: 'bad', title: 'Held up', says: 'Nothing is lost: events wait in the binlog, and the relay goes on by itself when it can.'},
  paused: {tone: 'warn', title: 'Paused', says: 'An operator told it to send nothing. Events wait in the binlog, and so does the place where it stopped.',
    mend: 'Resume goes on where it stopped. The server must keep its binlog until then.'},
  draining: {tone: 'busy', title: 'Stopping', says: 'It reads no more, and waits for the broker to confirm what is under way.'},
  halted: {tone: 'bad', title: 'Halted', says: 'Going on could lose or invent events, so the relay stopped and waits for a person.'},
};

export const reasons = {
  // Halted.
  binlog_purged: {title: 'the binlog it needs was deleted', says: 'The server deleted binlog files with transactions that the relay had not read yet.',
    mend: 'Move the relay to a snapshot: it then sends all that the outbox table still holds, some of it a second time. Let the server keep its binlog for longer.'},
  history_reset: {title: 'the binlog was reset', says: 'The binlog of the server was reset, or its gtid_mode changed, so the checkpoint means nothing to it.',
    mend: 'Move the relay to a snapshot: it then sends all that the outbox table still holds.'},
  source_changed: {title: 'this is another server', says: 'The checkpoint is a file and an offset on another server than this one.',
    mend: 'Lead the relay back to its server, or move it to a snapshot. With GTIDs on, a change of server needs neither.'},
  source_behind: {title: 'this server lags behind', says: 'This server has not got transactions that the relay published already: it is a replica that lags, or a backup.',
    mend: 'Wait until the server has caught up, or lead the relay to one that has everything.'},
  source_incident: {title: 'the binlog has a hole', says: 'The server says that its binlog misses something.',
    mend: 'Compare the outbox table with what was published around this place, then move the relay behind it.'},
  not_row_logged: {title: 'a change was not logged as rows', says: 'A change of the outbox table was logged as a statement, or not as whole rows.',
    mend: 'Take the right to change binlog_format from the user that did so, send that event anew, then move the relay behind it.'},
  xa_unsupported: {title: 'an XA transaction wrote to the outbox', says: 'An outbox row was written in an XA transaction, whose commit can come long after its rows.',
    mend: 'Write outbox rows in ordinary transactions, then move the relay behind this one.'},
  schema_mismatch: {title: 'the outbox table does not fit', says: 'The outbox table lacks a column that an event needs, or has it in another form.',
    mend: 'Bring the table to the form that cdc doctor asks for, then start the relay again.'},
  checkpoint_corrupt: {title: 'the checkpoint cannot be read', says: 'The saved checkpoint is not what a relay wrote: somebody changed the row, or the disk did.',
    mend: 'Move the relay to a snapshot, or to a place that you know.'},
  checkpoint_missing: {title: 'the checkpoint was deleted', says: 'The row with the checkpoint was deleted while the relay ran.',
    mend: 'Move the relay to a snapshot, or to a place that you know.'},
  poison: {title: 'an event cannot be a message', says: 'It is too large, or one of its fields does not fit.',
    mend: 'Mend or delete the outbox row and move the relay behind it, or run it with ON_POISON=quarantine.'},
  // Held up.
  source_unreachable: {title: 'MySQL does not answer', says: 'Nothing is lost: events wait in its binlog, and the relay goes on by itself.',
    mend: 'See whether the server runs, and whether the relay reaches it by network and login.'},
  broker_unreachable: {title: 'RabbitMQ does not answer', says: 'Nothing is lost: events wait in the binlog, and the relay goes on by itself.',
    mend: 'See whether the broker runs, and whether the relay reaches it by network and login.'},
  broker_alarm: {title: 'RabbitMQ takes no messages', says: 'RabbitMQ is short of memory or disk and takes no messages. Nothing is lost: events wait in the binlog.',
    mend: 'Let consumers drain its queues, or give the broker more memory or disk.'},
  refused: {title: 'RabbitMQ refuses a message', says: 'RabbitMQ said no to a message: a queue is full, or has lost the majority of its nodes. It is tried again.',
    mend: 'Look at the queues behind the exchange: their length limits, and their members.'},
  unroutable: {title: 'an event reaches no queue', says: 'RabbitMQ has no queue for its routing key, so it is held back, and all behind it. It is tried again.',
    mend: 'Bind a queue to the exchange for its routing key, or run with ON_UNROUTABLE=park to set such events aside.'},
  quarantine_unreachable: {title: 'the quarantine takes nothing', says: 'An event cannot be a message, and the table relay_quarantine does not take it. It is tried again.',
    mend: 'See the log for what MySQL says: a right that is missing, a table that is locked.'},
  topology: {title: 'the exchange is missing', says: 'The exchange is missing, or is of another kind than the relay was told. It is tried again.',
    mend: 'Declare the exchange as a durable topic exchange, or correct the setting EXCHANGE.'},
};

const marks = {ok: 'M14 25l7 7 14-15', warn: 'M24 13v14M24 34v.5', bad: 'M16 16l16 16M32 16L16 32', idle: 'M16 24h16', busy: 'M24 14v11l7 5'};

export const sign = tone => marks[tone] || marks.idle;
export const pauseSign = 'M19 16v16M29 16v16';

// behindFrom is when a relay that works is said to be behind, in seconds.
const behindFrom = 10;

// describe puts the state into words: {tone, title, says, mend, sign}.
export function describe(position, drift) {
  const state = states[position.state] || {tone: 'idle', title: position.state, says: ''};
  const told = {sign: position.state === 'paused' ? pauseSign : sign(state.tone), mend: '', ...state};
  if (position.reason) {
    const reason = reasons[position.reason] || {title: position.reason.replaceAll('_', ' '), says: told.says};
    told.title += ': ' + reason.title;
    told.says = reason.says;
    told.mend = reason.mend || '';
    if (position.state !== 'halted' && position.state !== 'blocked') told.tone = 'warn';
  } else if (position.state === 'streaming' && position.lag.seconds > behindFrom) {
    told.tone = 'warn';
    told.sign = marks.warn;
    told.title = 'Working, and behind';
    told.says = 'The oldest event that waits was committed a while ago. ' + drift;
  } else if (position.state === 'standby' && !position.leader.id) {
    told.says = 'Nobody relays at the moment. One of the instances is about to take over.';
    told.tone = 'warn';
  }
  return told;
}
