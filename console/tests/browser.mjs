// A browser at a gateway's console, for the tests: Debian's Chromium, driven by playwright-core.
//
// Where the gateway is and how one comes in stands in the environment; integration-tests/tests/console.rs sets it. Nothing
// here waits for a time: every wait is for something to be there, with PATIENCE_MS as its deadline. A page that logs an
// error, throws, or breaks its Content-Security-Policy fails its test.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { chromium } from "playwright-core";

const required = createRequire(import.meta.url);

export const PATIENCE_MS = Number(process.env.CONSOLE_PATIENCE_MS ?? 20_000);

/** Milliseconds between two looks at something that can only be asked for. */
const LOOK_EVERY_MS = 50;

export const gateway = {
  console: needed("CONSOLE_URL"),
  token: process.env.CONSOLE_TOKEN ?? "",
  mqttPort: Number(process.env.CONSOLE_MQTT_PORT ?? 0),
  /** Where the test asks for what only its other half can do: open a sink, tell what a sink got. */
  control: process.env.CONSOLE_CONTROL ?? "",
  setupToken: process.env.CONSOLE_SETUP_TOKEN ?? "",
  screenshots: process.env.CONSOLE_SCREENSHOTS ?? "",
};

/** Users that the configuration of the tests has; one password for all. */
export const PASSWORD = "correct horse battery";

export const WIDE = { width: 1440, height: 900 };
export const NARROW = { width: 360, height: 740 };

function needed(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: these tests are started by integration-tests/tests/console.rs`);
  return value;
}

/** Opens a browser with one page; it is closed with the test. `refusals`: statuses that the test means to provoke. */
export async function open(t, { viewport = WIDE, colorScheme = "light", refusals = [401] } = {}) {
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  const complaints = [];
  t.after(async () => {
    // Where the test left off: what one looks at first when it failed.
    const last = browser.contexts()[0]?.pages()[0];
    if (last) await screenshot(last, `left-off/${t.name.replaceAll(/[^a-z0-9]+/gi, "-")}`).catch(() => undefined);
    await browser.close();
    assert.deepEqual(complaints, [], "the page complained");
  });
  // Nothing moves: halfway between two colours nothing has the contrast that it will have.
  const context = await browser.newContext({ viewport, colorScheme, reducedMotion: "reduce" });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.refused = [];
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}:${event.columnNumber} ${event.sample}`);
    });
  });
  page.on("pageerror", (error) => complaints.push(`thrown: ${error.message}`));
  page.on("dialog", (dialog) => void dialog.accept());
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    // The browser's own words about a status; which ones are allowed is judged below.
    if (message.text().startsWith("Failed to load resource")) return;
    if (page.isCutOff) return;
    complaints.push(message.text());
  });
  page.on("response", (response) => {
    if (response.status() < 400) return;
    page.refused.push(`${response.status()} ${response.request().method()} ${new URL(response.url()).pathname}`);
    if (!refusals.includes(response.status())) complaints.push(page.refused.at(-1));
  });
  return { browser, context, page };
}

export async function signIn(page, name) {
  await page.goto(`${gateway.console}/`);
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".shell").waitFor();
}

/** Goes to a place of the console and waits for its title. */
export async function visit(page, place, title) {
  await page.goto(`${gateway.console}/#${place}`);
  await page.getByRole("heading", { level: 1, name: title, exact: true }).waitFor();
}

/** Asks the interface as an administrator. */
export async function api(method, path, body) {
  const response = await fetch(`${gateway.console}/api/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${gateway.token}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

/** Asks the test's other half. */
export async function control(what) {
  const response = await fetch(`${gateway.control}/${what}`, { method: "POST" });
  assert.ok(response.ok, `${what}: ${response.status}`);
  return response.text();
}

/** An MQTT client over TCP; ended with the test. */
export async function mqttClient(t, clientId) {
  const mqtt = required("mqtt");
  const client = await mqtt.connectAsync({ host: "127.0.0.1", port: gateway.mqttPort, protocolVersion: 5, clientId, clean: true });
  t.after(() => client.endAsync(true));
  return client;
}

/** Looks again and again until `look` gives something that is true, and returns that. */
export async function until(what, look) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) assert.fail(`not within ${PATIENCE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

/** Finds what stands in the way of people who can't see, hear or point well. */
export async function accessible(page, where) {
  await page.evaluate(axeSource());
  const { violations } = await page.evaluate(() =>
    window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }),
  );
  const found = violations.map((one) => `${one.id}: ${one.help}\n${one.nodes.map((node) => `  ${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`).join("\n")}`);
  assert.deepEqual(found, [], `${where} is not accessible`);
}

let axe;
function axeSource() {
  axe ??= readFileSync(required.resolve("axe-core/axe.min.js"), "utf8");
  return axe;
}

/** Nothing is cut off at the side: the page itself never scrolls sideways. */
export async function fits(page, where) {
  const beyond = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(beyond <= 0, `${where} is ${beyond} pixels wider than the window`);
}

export async function screenshot(page, name) {
  if (!gateway.screenshots) return;
  const path = `${gateway.screenshots}/${name}.png`;
  mkdirSync(dirname(path), { recursive: true });
  await page.screenshot({ path, fullPage: true, animations: "disabled" });
}
