// The line to the relay: what it sends each second, kept open, and opened anew when it is silent.

const silence = 6000; // without a frame for so long the line counts as dead, whatever the browser thinks of it

// listen calls on[name](document) for each event, and state('open' | 'lost') for the line itself.
export function listen(on, state) {
  let source, watchdog;

  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(reopen, silence);
  };
  const reopen = () => {
    state('lost');
    source.close();
    open();
  };
  const open = () => {
    source = new EventSource('events');
    for (const name of Object.keys(on)) {
      source.addEventListener(name, event => {
        alive();
        on[name](JSON.parse(event.data));
      });
    }
    source.addEventListener('open', () => state('open'));
    source.addEventListener('error', () => state('lost')); // it tries again by itself; if it does not, the watchdog does
    alive();
  };
  open();
}
