// How numbers and times are written for a person.

const whole = new Intl.NumberFormat('en', {maximumFractionDigits: 0});
const short = new Intl.NumberFormat('en', {maximumSignificantDigits: 3});

export const count = n => whole.format(n);

// rate is events a second.
export const rate = n => (n > 0 && n < 10 ? plain(n) : whole.format(n)) + '/s';

export function bytes(n) {
  let unit = 0;
  for (; n >= 1000 && unit < 5; unit++) n /= 1000;
  return (unit ? short.format(n) : whole.format(n)) + ' ' + ['B', 'kB', 'MB', 'GB', 'TB', 'PB'][unit];
}

// seconds is a stretch of time, with no more digits than one reads.
export function seconds(s) {
  if (s === null || s === undefined || Number.isNaN(s)) return '–';
  if (s < 0.0005) return '0 s';
  if (s < 0.00995) return plain(s * 1000) + ' ms';
  if (s < 0.9995) return Math.round(s * 1000) + ' ms';
  if (s < 9.95) return plain(s) + ' s';
  if (s < 90) return Math.round(s) + ' s';
  if (s < 600) return Math.floor(s / 60) + ' min' + (Math.round(s % 60) ? ' ' + Math.round(s % 60) + ' s' : '');
  if (s < 5400) return Math.round(s / 60) + ' min';
  if (s < 129600) return short.format(s / 3600) + ' h';
  return whole.format(s / 86400) + ' days';
}

// plain has one digit behind the point, if it says anything.
const plain = n => n.toFixed(1).replace(/\.0$/, '');

// clock is a time of day, here.
export const clock = at => new Date(at).toLocaleTimeString('en-GB', {hour: '2-digit', minute: '2-digit', second: '2-digit'});

// since is how long ago a time was, by the relay's clock.
const since = (at, now) => at ? Math.max(0, (now - Date.parse(at)) / 1000) : null;

// ago puts it into words.
export function ago(at, now) {
  const s = since(at, now);
  return s < 1.5 ? 'just now' : seconds(s) + ' ago';
}

// tail is the end of an id, which tells ids made at one time apart.
export const tail = id => id.length > 13 ? '…' + id.slice(-12) : id;

// words turns a code into words: source_unreachable.
export const words = code => code.replaceAll('_', ' ');
