// Opens the hub's pages in a browser and checks what a user would notice. Started by tests/it/hub/pages.rs:
// hub.mjs PART BASE CHROMIUM FOLDER, where PART is fleet, looks, looks-of-work, states, work or check. Ends with 0 if all is well.

import { mkdir } from 'node:fs/promises';
import puppeteer from 'puppeteer-core';
import { fleet } from './fleet.mjs';
import { looks, looksOfWork } from './looks.mjs';
import { states } from './states.mjs';
import { work } from './work.mjs';
import { check as checks } from './check.mjs';

const [part, base, chromium, folder] = process.argv.slice(2);
const wrong = [];
/// Notes that something is not as it should be; the run goes on, so that all is said at once.
function check(holds, what) { if (!holds) { wrong.push(what); console.log('WRONG: ' + what); } }

const browser = await puppeteer.launch({
  executablePath: chromium,
  // Root, in a container, without a GPU.
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars'],
});

/// A page of its own profile, of which nothing goes unnoticed: errors, violations of the policy, requests to others.
async function open(width = 1440, height = 900) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  await page.setViewport({ width, height });
  page.expected = false;
  page.allowed = null; // the only other origin that may be asked
  page.on('console', (said) => { if (said.type() === 'error' && !page.expected) check(false, 'console: ' + said.text()); });
  page.on('pageerror', (err) => check(false, 'error in the page: ' + err.message));
  page.on('dialog', async (dialog) => { check(false, 'a dialog opened: ' + dialog.message()); await dialog.dismiss(); });
  page.on('request', (request) => { if (!/^data:/.test(request.url()) && ![base, page.allowed].includes(new URL(request.url()).origin)) check(false, 'a request to ' + request.url()); });
  await page.evaluateOnNewDocument(() => addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective + ' ' + e.blockedURI)));
  return page;
}

/// Waits until `look` is true in the page; notes it if that does not come.
async function until(page, what, look, ...args) {
  try { await page.waitForFunction(look, { timeout: 15_000, polling: 20 }, ...args); return true; } catch { check(false, what); return false; }
}

/// Has the hub do something.
const ask = (what, params) => fetch(`${base}/test/${what}?${new URLSearchParams(params)}`, { method: 'POST' });
const shot = (page, name) => page.screenshot({ path: `${folder}/${name}.png` });
const text = (page, selector) => page.$eval(selector, (element) => element.textContent);

try {
  await mkdir(folder, { recursive: true });
  const tools = { base, check, open, until, ask, shot, text, hostile: process.env.HOSTILE };
  await { fleet, looks, 'looks-of-work': looksOfWork, states, work, check: checks }[part](tools);
} catch (err) {
  check(false, err.stack);
} finally {
  await browser.close();
}
if (wrong.length) console.log(`${wrong.length} wrong`); else console.log('all is well');
process.exitCode = wrong.length ? 1 : 0;
