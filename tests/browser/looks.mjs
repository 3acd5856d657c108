// How the pages look: accessible in both themes, on a screen and on a phone, without a sideways scroll. Leaves pictures.

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const PAGES = {
  fleet: ['#/fleet', () => document.querySelectorAll('.row').length > 10 && !document.querySelector('.outline:not([hidden])')],
  node: ['#/node/ams-c-111', () => document.querySelectorAll('.plot svg').length > 3 && document.querySelector('.slots') && document.querySelector('.evt tbody tr') && document.querySelectorAll('.watcher').length === 2 && document.querySelector('.say.bad')?.textContent.includes('disagree: training') && !document.querySelector('.wait')],
  agent: ['#/node/ams-a-101', () => document.querySelector('.facts') && !document.querySelector('.wait')],
  job: ['#/job/ams-c-111/job-1', () => document.querySelector('.gantt li')],
  alerts: ['#/alerts', () => document.querySelectorAll('.al').length === 3],
  events: ['#/events', () => document.querySelectorAll('.evl tbody tr').length > 50],
};

// Those with plots, logs, earnings and checks; a run of its own, since each takes its time.
const WORK = {
  running: ['#/job/ams-c-111/job-2', () => document.querySelectorAll('.plot svg').length >= 6 && document.querySelector('.log')],
  earnings: ['#/earnings', () => document.querySelectorAll('.share').length > 14],
  earned: ['#/earnings?node=ams-c-111', () => document.querySelectorAll('.share').length > 10 && document.querySelectorAll('.figures').length > 1],
  check: ['check#ams-c-111/job-1', () => document.querySelector('#doc')?.value.includes('job-1')],
};

export const looks = (tools) => look(tools, PAGES);
export const looksOfWork = (tools) => look(tools, WORK);

async function look({ base, check, open, until, shot }, pages) {
  const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  let runs = 0;
  for (const width of [1440, 360]) {
    const page = await open(width, width === 360 ? 780 : 900);
    for (const theme of ['light', 'dark']) {
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: theme }]);
      for (const [name, [hash, isThere]] of Object.entries(pages)) {
        await page.goto(`${base}/${hash}`);
        await page.reload();
        if (!await until(page, `${name} is there`, isThere)) continue;
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
        for (const it of violations) check(false, `${name}, ${theme}, ${width}: ${it.id}: ${it.nodes.slice(0, 3).map((node) => node.target + ' ' + (node.any[0]?.message ?? '')).join('; ')}`);
        runs++;
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        check(wide <= 0, `${name}, ${width}: ${wide} px wider than the screen`);
        await shot(page, `${name}-${theme}-${width}`);
      }
    }
    await page.browserContext().close();
  }
  console.log(`axe: ${runs} runs`);
  const page = await open(1440, 900);
  for (const width of [390, 768, 1024]) {
    await page.setViewport({ width, height: 800 });
    for (const [name, [hash, isThere]] of Object.entries(pages)) {
      await page.goto(`${base}/${hash}`);
      await until(page, `${name} is there`, isThere);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      check(wide <= 0, `${name}, ${width}: ${wide} px wider than the screen`);
    }
  }
}
