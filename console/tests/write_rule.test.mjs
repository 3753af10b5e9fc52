// A rule is written with completion, tried on a frozen message, kept from being saved by a sample that fails, mended,
// saved, and seen matching live.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, mqttClient, open, screenshot, signIn, until, visit } from "./browser.mjs";

const PAYLOAD = '{"temperature":71.5,"unit":"C","where":{"hall":3}}';

test("a rule is written, tried, mended, saved, and matches", async (t) => {
  const device = await mqttClient(t, "press-1");
  // Half a statement is refused where it is tried.
  const { page } = await open(t, { refusals: [401, 422] });
  await signIn(page, "ada");
  await visit(page, "/new-rule", "New rule");
  await page.locator(".live-mark.open").waitFor();
  await device.publishAsync("hall/oven", PAYLOAD, { qos: 1 });
  await page.getByLabel("only this rule's topics").uncheck();
  await page.getByRole("button", { name: /hall\/oven/ }).first().waitFor();

  await page.getByLabel("Name of the rule").fill("overheat");
  const sql = page.getByRole("textbox", { name: "SQL statement" });
  const list = page.locator(".cm-tooltip-autocomplete");
  const option = (label) => list.getByRole("option", { name: label });
  await sql.click();
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");

  // Keywords, fields of payloads that went by, functions with their signature.
  await page.keyboard.type("SEL");
  await option(/^SELECT/).click();
  await page.keyboard.type(" whe");
  await option(/^where\.hall/).waitFor();
  await page.keyboard.press("Escape");
  for (let index = 0; index < 3; index += 1) await page.keyboard.press("Backspace");
  await page.keyboard.type("temp");
  await option(/^temperature.*Decimal/).click();
  await page.keyboard.type(" AS t, roun");
  await option(/^round/).waitFor();
  await page.locator(".cm-completionInfo").getByText("round(", { exact: false }).first().waitFor();
  await option(/^round/).click();
  await page.keyboard.type("temperature");
  await page.keyboard.press("Escape");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.type(" AS r ");
  await page.keyboard.press("Enter");
  // Topics that went by, inside the string of FROM.
  await page.keyboard.type("FROM 'ha");
  await option(/^hall\/oven/).waitFor();
  await option(/^hall\/#/).waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.type("ll/+");
  await page.keyboard.press("Escape");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.type(" ");
  await page.keyboard.press("Enter");
  await page.keyboard.type("WHERE roud(temperature) > 80 ");
  await page.keyboard.press("Escape");

  // A mistake is underlined where it is, with its code and what was perhaps meant.
  await page.locator(".cm-lintRange-error", { hasText: "roud" }).waitFor();
  const finding = page.getByRole("status", { name: "Findings" }).locator(".finding.error");
  await finding.getByText("R0202").waitFor();
  await finding.getByText("round").waitFor();
  assert.ok(await page.getByRole("button", { name: "Save", exact: true }).isDisabled(), "a rule that is wrong can't be saved");
  await accessible(page, "the editor with a mistake");
  await page.locator(".cm-lintRange-error").click();
  await page.keyboard.press("Control+End");
  await page.keyboard.press("Shift+Home");
  await page.keyboard.press("Delete");
  await page.keyboard.type("WHERE round(temperature) > 80 ");
  await page.keyboard.press("Escape");
  await page.locator(".finding.fine").waitFor();

  // One click freezes a live message; the tree says which part decided.
  await page.getByRole("button", { name: /hall\/oven/ }).first().click();
  assert.equal(await page.getByLabel("Topic", { exact: true }).inputValue(), "hall/oven");
  assert.equal(await page.getByLabel("Client identifier").inputValue(), "press-1");
  const result = page.locator(".panel.result");
  await result.getByText("No match").waitFor();
  await result.locator(".step-line", { hasText: "round(temperature) > 80" }).getByText("decides").waitFor();
  await result.locator(".step-line", { hasText: "71.5" }).first().waitFor();
  await page.getByText("matched 0 of the last").waitFor();

  // It is kept as a sample that should come out; the statement doesn't do that yet.
  await page.getByRole("button", { name: "Keep this message" }).click();
  await page.getByLabel("Name of the sample").fill("hot oven");
  await page.getByLabel("What should become of it").selectOption("output");
  await page.getByLabel("Expected output, JSON").fill('{"t": 71.5, "r": 72}');
  await accessible(page, "the dialog of a sample");
  await page.getByRole("button", { name: "Keep", exact: true }).click();
  await page.locator(".cases").getByText("fails").waitFor();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  const blocked = page.getByRole("dialog", { name: "Samples fail" });
  await blocked.getByText("hot oven").waitFor();
  await screenshot(page, "save-blocked-1440-light");
  await blocked.getByRole("button", { name: "Cancel" }).click();
  await assert.rejects(api("GET", "/rules/overheat"), "nothing was saved");

  // Mended: the sample passes, and the action's request is shown without being sent.
  await sql.click();
  await page.keyboard.press("Control+End");
  await page.keyboard.press("Shift+Home");
  await page.keyboard.press("Delete");
  await page.keyboard.type("WHERE round(temperature) > 60 ");
  await page.keyboard.press("Escape");
  await page.locator(".cases").getByText("passes").waitFor();
  await page.getByRole("combobox", { name: "Type", exact: true }).selectOption("republish");
  await page.locator(".action-fields").getByLabel("Topic", { exact: true }).fill("alarms/${topic(2)}");
  await result.getByText("would send").waitFor();
  await result.locator(".would-send dd", { hasText: "alarms/oven" }).waitFor();
  await result.getByLabel("Output").getByText("71.5").waitFor();
  await page.getByText("matched 1 of the last").waitFor();

  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByRole("heading", { level: 1, name: "overheat" }).waitFor();
  await page.getByText("version 1 by ada").waitFor();
  const saved = await api("GET", "/rules/overheat");
  assert.match(saved.definition.sql, /WHERE round\(temperature\) > 60/);
  const { cases } = await api("GET", "/rules/overheat/cases");
  assert.deepEqual(cases.map((one) => [one.id, one.expect]), [["hot oven", { t: 71.5, r: 72 }]]);

  await visit(page, "/rules", "Rules");
  await page.locator(".live-mark.open").waitFor();
  const row = page.getByRole("row", { name: /overheat/ });
  await until("the rule is seen matching", async () => {
    await device.publishAsync("hall/oven", PAYLOAD, { qos: 1 });
    const text = await row.getByRole("cell").nth(3).innerText();
    return /[1-9]/.test(text.split("\n")[1] ?? "");
  });
  await row.getByRole("switch", { name: "overheat runs" }).uncheck();
  await until("the rule is switched off", async () => !(await api("GET", "/rules/overheat")).summary.runs);
});
