// What a job writes, live: over the event stream of this tab, from the moment on at which somebody looks.

import { h, hms, n0, straight } from './ui.js';
import { follow } from './live.js';

/// The most lines that are shown; those of before go.
const LINES_MAX = 2_000;

/// The section's parts, and what ends it.
export function logOf(node, job) {
  let isOn = true, end = null, last = 0, lastAt = 0, count = 0, missing = 0, attempt = null, isAnother = false;
  const body = h('div.log', { tabindex: 0, role: 'log', 'aria-live': 'off', 'aria-label': 'Log, live' });
  const note = h('span.mu', { role: 'status' });
  const button = h('button', { type: 'button', 'aria-pressed': 'true', onclick: () => turn(!isOn) }, 'Follow');
  const tell = (text) => { note.textContent = text + (missing ? `; ${n0(missing)} lines are missing` : ''); };

  function take({ lines = [], dropped, is_heard: isHeard, is_lost: isLost, refused }) {
    if (refused) { tell('not shown: ' + refused); return; }
    if (isHeard != null) { tell(isHeard ? 'live, from now on' : 'the hub does not hear it now'); return; }
    if (isLost) missing++;
    missing += dropped || 0;
    const isAtEnd = !body.isConnected || body.scrollHeight - body.scrollTop - body.clientHeight < 30;
    const added = [], before = count;
    for (const [seq, at, isError, line] of lines) {
      if (seq <= last) {
        // Numbers are of an attempt: those of the next one begin anew, and later.
        if (seq > 1 && !isAnother && !(at > lastAt)) continue; // told twice
        [last, isAnother] = [0, false];
        added.push(h('div.mu', null, '… the job was begun anew'));
      }
      if (last && seq > last + 1) added.push(h('div.mu', null, `… ${n0(seq - last - 1)} lines are missing here`));
      [last, lastAt] = [seq, at ?? lastAt];
      count++;
      added.push(h('div' + (isError ? '.err' : ''), null, h('time', { datetime: at == null ? null : new Date(at).toISOString() }, at == null ? '' : hms(at)), h('span', { title: isError ? 'stderr' : 'stdout' }, isError ? '!' : ' '), h('span', null, straight(line) || ' ')));
    }
    body.append(...added);
    while (body.childElementCount > LINES_MAX) body.firstChild.remove();
    if (isAtEnd) body.scrollTop = body.scrollHeight;
    if (count > before || dropped || isLost) tell(count === 1 ? 'one line' : `${n0(count)} lines`);
  }
  function turn(on) {
    isOn = on;
    button.setAttribute('aria-pressed', String(on));
    end?.();
    end = on ? follow(node, job, take) : null;
    tell(on ? 'asking for it' : 'not followed');
  }
  turn(true);
  /// Says which attempt the job is at.
  const at = (now) => { isAnother ||= attempt != null && now != null && now !== attempt; attempt = now ?? attempt; };
  return { parts: [h('div.logbar', null, button, note), body], end: () => end?.(), at };
}
