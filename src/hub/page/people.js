// Who is logged in, and what only admins do: silences begin and end here.

import { $, ask, h, Refused } from './ui.js';

export const me = { name: null, is_admin: false, can_log_in: false };

/// Asks who is logged in, and shows it at the top.
export async function whoAmI() {
  try { Object.assign(me, await ask('/api/me')); } catch { return; }
  const place = $('#who');
  if (me.name) place.replaceChildren(h('form', { method: 'post', action: '/logout' }, h('button', { type: 'submit', title: `You are ${me.name}` }, 'Log out')));
  else if (me.can_log_in) place.replaceChildren(h('a.a', { href: '/login' }, 'Log in'));
  dispatchEvent(new Event('me'));
}

async function change(method, path, body) {
  const answer = await fetch(path, { method, headers: { 'content-type': 'application/json' }, body: body && JSON.stringify(body) });
  if (answer.ok) return;
  const said = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, typeof said.detail === 'string' ? said.detail : `The hub answered ${answer.status}.`);
}

/// A button that does something and says in itself what became of it.
function act(label, title, what) {
  const button = h('button', { type: 'button', title, onclick: async () => {
    button.disabled = true;
    try { await what(); } catch (err) { button.replaceChildren(err.message); button.disabled = false; }
  } }, label);
  return button;
}

/// Silences an incident's rule for an hour, of its only node if it has one; for admins.
export function silenceButton(incident) {
  if (!me.is_admin) return null;
  const only = incident.members_total === 1 ? incident.members[0]?.name : undefined;
  const title = `Nobody is told of ${incident.rule} ${only ? `of ${only} ` : ''}for an hour`;
  return act('Silence 1 h', title, () => change('POST', '/api/silences', { rule: incident.rule, nodes: only, lasts_s: 3600, why: 'silenced on the page' }));
}

/// Ends a silence; for admins.
export function endButton(silence) {
  return me.is_admin ? act('End', 'End this silence', () => change('DELETE', `/api/silences/${silence.id}`)) : null;
}
