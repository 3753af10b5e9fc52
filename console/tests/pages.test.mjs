// Every page: nothing stands in anybody's way, nothing is cut off, and a picture is taken at two widths, light and dark.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { accessible, api, fits, mqttClient, NARROW, open, screenshot, signIn, until, visit, WIDE } from "./browser.mjs";

const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
const pictures = read("./screenshots.json");

test("every route has its pictures", () => {
  const routes = read("../src/routes.json").map((route) => route.id);
  assert.deepEqual(Object.keys(pictures).sort(), routes.sort(), "src/routes.json and tests/screenshots.json name the same pages");
});

test("every page is accessible and fits, wide and narrow, light and dark", async (t) => {
  const device = await mqttClient(t, "press-1");
  const { page } = await open(t);
  await api("PUT", "/rules/comfort", { sql: "SELECT *\nFROM 'hall/+'\nWHERE temperature > 20", actions: [{ name: "log", type: "log" }] });
  await api("PUT", "/rules/comfort", {
    description: "what is told of a warm hall",
    tags: ["climate"],
    sql: "SELECT temperature AS t,\n       round(temperature * 9 / 5 + 32) AS fahrenheit,\n       topic(2) AS machine\nFROM 'hall/+'\nWHERE temperature > 60 AND unit = 'C'",
    actions: [
      { name: "alarm", type: "republish", topic: "alarms/${topic(2)}", qos: 1 },
      { name: "ops", type: "http", connector: "ops", url: "/alarms/${topic(2)}" },
    ],
  });
  await api("PUT", "/rules/comfort/cases", {
    cases: [
      { id: "hot oven", rule: "comfort", topic: "hall/oven", payload: { temperature: 71.5, unit: "C" }, expect: { t: 71.5, fahrenheit: 161, machine: "oven" } },
      { id: "mild", rule: "comfort", topic: "hall/oven", payload: { temperature: 21.5, unit: "C" }, no_match: true },
    ],
  });
  await device.publishAsync("hall/oven", '{"temperature":71.5,"unit":"C"}', { qos: 1, retain: true });
  await until("a dead letter", async () => (await api("GET", "/dead-letters")).letters.some((letter) => letter.name === "overheat/ops:1"));

  let signedIn = false;
  const entries = Object.entries(pictures).sort(([, left], [, right]) => Number(right.signed_out ?? false) - Number(left.signed_out ?? false));
  for (const [id, { place, title, ready, signed_out: signedOut }] of entries) {
    if (!signedOut && !signedIn) {
      await signIn(page, "ada");
      signedIn = true;
    }
    for (const [width, viewport] of [["1440", WIDE], ["360", NARROW]]) {
      await page.setViewportSize(viewport);
      for (const scheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme: scheme });
        await visit(page, place, title);
        await page.locator(ready).first().waitFor();
        if (id === "rule") {
          await page.locator(".live-mark.open").waitFor();
          for (const [index, temperature] of [64, 21, 71.5].entries()) {
            await device.publishAsync(index === 1 ? "hall/door" : "hall/oven", `{"temperature":${temperature},"unit":"C"}`, { qos: 1 });
          }
          await page.locator(".freeze").nth(2).waitFor();
          await page.locator(".cases .badge.good").nth(1).waitFor();
          await page.locator(".would-send").nth(1).waitFor();
          await page.getByText(/matched \d+ of the last/).waitFor();
        }
        await accessible(page, `${id} at ${width}, ${scheme}`);
        await fits(page, `${id} at ${width}`);
        await screenshot(page, `${id}-${width}-${scheme}`);
      }
    }
  }
});

test("the navigation opens and closes by keyboard where it has no room", async (t) => {
  const { page } = await open(t, { viewport: NARROW });
  await signIn(page, "ada");
  await page.getByRole("heading", { level: 1, name: "Home" }).waitFor();
  assert.equal(await page.getByRole("link", { name: "Rules", exact: true }).isVisible(), false);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "Rules", exact: true }).waitFor();
  await accessible(page, "the open navigation");
  await screenshot(page, "navigation-360-light");
  await page.getByRole("link", { name: "Rules", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Rules" }).waitFor();
  await page.getByRole("link", { name: "Actions", exact: true }).waitFor({ state: "hidden" });
});
