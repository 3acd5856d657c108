// The columns of the fleet: what each cell says, and where it comes from. What is not known is "–".

import { age, gib, iso, n0, site, word } from './ui.js';

const heard = (t, at, what, patience) => t == null ? 'never heard'
  : `${what} at ${iso(t)}, ${age(at - t)} ago${patience ? `; late after ${age(patience)}` : ''}`;
const clock = (t, at) => t == null ? '–' : age(at - t);
/// Whether a clock is silent for longer than it may be.
export const isLate = (t, at, patience) => t != null && patience > 0 && at - t > patience;
// Nobody is late where nobody listened.
const late = (row, key, at) => row.standing !== 'not_watched' && isLate(row[key], at, site.patience[key]);
/// Of these, nothing that they said of their work is current.
export const isAway = (row) => row.standing === 'down' || row.standing === 'zombie' || row.standing === 'not_watched';
export const model = (text) => text.replace(/^NVIDIA (GeForce )?/, '');
export const cards = (gpus) => !gpus ? '–' : !gpus.count ? 'none'
  : `${gpus.count} × ${model(gpus.model)}${gpus.is_mixed ? ' …' : ''}${gpus.out ? `, ${gpus.out} out` : ''}`;
const jobs = (row) => row.jobs ? `${row.jobs[0]} of ${row.jobs[1]}` : '–';

/// Key (as the server sorts), title, text, evidence, whether it is a figure, whether its first order is downwards.
export const COLUMNS = [
  { key: 'standing', title: 'State', text: (r) => r.gone ? 'gone' : word(r.standing), ev: (r, at) => r.gone ? 'the hub has forgotten this node'
    : `${word(r.standing)} since ${iso(r.since)}, ${age(at - r.since)}${r.why ? ': ' + r.why : ''}` },
  { key: 'name', title: 'Node', text: (r) => r.name, ev: (r) => `${r.name}${r.address ? ' · ' + r.address : ''} · first heard at ${iso(r.first)}` },
  { key: 'gpus', title: 'GPUs', text: (r) => cards(r.gpus), ev: (r) => !r.gpus ? 'this node does not say which cards it has'
    : `${cards(r.gpus)}, ${gib(r.gpus.vram_mib)} together${r.gpus.out ? `; ${r.gpus.out} get no job now` : ''} · presence on NATS` },
  { key: 'jobs', title: 'Jobs', num: true, down: true, text: (r) => isAway(r) ? '–' : jobs(r), ev: (r, at) => !r.jobs ? 'this node does not say how many jobs it runs'
    : isAway(r) ? `not known now; it last said ${jobs(r)} slots` : `${jobs(r)} slots hold a job · presence on NATS, ${clock(r.nats, at)} ago` },
  { key: 'ip', title: 'Address', text: (r) => r.ip || '–', ev: (r) => r.ip ? `${r.ip} · told by its last beat` : 'no beat has told an address' },
  { key: 'meta', title: 'About', text: (r) => r.meta || '–', ev: (r) => r.meta ? `${r.meta} · told by its last beat` : 'no beat has told anything' },
  { key: 'since', title: 'Since', num: true, text: (r, at) => age(at - r.since), ev: (r) => `stands so since ${iso(r.since)}` },
  { key: 'own', title: 'Own', num: true, text: (r, at) => clock(r.own, at), late: (r, at) => late(r, 'own', at),
    ev: (r, at) => heard(r.own, at, `POST /api/heartbeat${r.says_down ? ' (which says DOWN)' : ''}`, site.patience.own) },
  { key: 'nats', title: 'NATS', num: true, text: (r, at) => clock(r.nats, at), late: (r, at) => late(r, 'nats', at),
    ev: (r, at) => heard(r.nats, at, r.nats_seq == null ? 'message' : `message seq ${n0(r.nats_seq)}`, site.patience.nats) },
  { key: 'chain', title: 'Chain', num: true, text: (r, at) => clock(r.chain, at), late: (r, at) => late(r, 'chain', at),
    ev: (r, at) => heard(r.chain, at, r.chain_block == null ? 'heartbeat' : `heartbeat in block ${n0(r.chain_block)}`, site.patience.chain) },
  { key: 'tags', title: 'Tags', text: (r) => r.tags?.join(' ') || '–', ev: (r) => r.tags?.length ? `tags of the owner: ${r.tags.join(', ')}` : 'the owner has set no tag' },
];
export const column = (key) => COLUMNS.find((it) => it.key === key) || COLUMNS[0];
