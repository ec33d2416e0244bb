// Calls that change something. The token is asked for when it is needed and kept in this tab's session storage alone.
import {$, say, show, toast} from './dom.js';

const key = 'tailbox-token';

// ask opens the dialog and gives what was typed, or null when it was left.
function ask({title, says, go, danger, why, token, wrong}) {
  const dialog = $('ask');
  say('ask-title', title);
  say('ask-says', says);
  say('ask-go', go);
  $('ask-go').classList.toggle('danger', Boolean(danger));
  show('ask-why-label', why);
  show('ask-token-label', token);
  show('ask-wrong', Boolean(wrong));
  say('ask-wrong', wrong || '');
  $('ask-why').value = why || '';
  $('ask-token').value = '';
  $('ask-token').required = token;
  dialog.returnValue = '';
  dialog.showModal();
  (token ? $('ask-token') : why !== undefined ? $('ask-why') : $('ask-go')).focus();
  return new Promise(resolve => {
    dialog.addEventListener('close', () => {
      const typed = {why: $('ask-why').value, token: $('ask-token').value};
      $('ask-token').value = '';
      resolve(dialog.returnValue === 'go' ? typed : null);
    }, {once: true});
  });
}

// change asks whether it is meant, and for the token if there is none yet, makes the call, and tells what came of it. It
// gives the answer, or null when nothing was done.
export async function change({method, path, body, title, says, go, danger, done, withWhy = true}) {
  let wrong = '', reason = '';
  for (;;) {
    const known = sessionStorage.getItem(key);
    const typed = await ask({title, says, go, danger, why: withWhy ? reason : undefined, token: !known, wrong});
    if (!typed) return null;
    reason = typed.why;
    const token = known || typed.token;
    const document = withWhy ? {...body, why: reason} : body;
    let answer, problem = {};
    try {
      answer = await fetch(path, {method, headers: {'Authorization': 'Bearer ' + token, 'Content-Type': 'application/json'}, body: JSON.stringify(document)});
      problem = await answer.json().catch(() => ({}));
    } catch {
      wrong = 'The relay cannot be reached.';
      continue;
    }
    if (answer.ok) {
      sessionStorage.setItem(key, token);
      toast(done(problem));
      return problem;
    }
    if (answer.status === 401) sessionStorage.removeItem(key);
    wrong = refusal(answer.status, problem);
  }
}

function refusal(status, problem) {
  if (status === 401) return 'This token is not the right one.';
  if (problem.code === 'admin_disabled') return 'The service was started without ADMIN_TOKEN, so nothing can be changed over HTTP.';
  return problem.detail || problem.title || 'Refused, with status ' + status + '.';
}
