// What the pages reckon: rates, gaps, what is kept of messages, places of findings, what a form writes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { load } from "./modules.mjs";

const counters = (matched, passed = 0) => ({ name: "r", matched, passed, actions: [] });

test("there is a rate between two looks, and none where nothing is known", async () => {
  const { lastRate, rates, withGaps } = await load("charts/rates.ts");
  assert.deepEqual(rates([0, 1000, 3000], [0, 10, 30]), [null, 10, 10]);
  assert.deepEqual(rates([0, 1000, 2000], [5, 0, 2]), [null, null, 2], "a counter that began anew");
  assert.deepEqual(rates([0, 1000, 7000], [0, 10, 70], 5000), [null, 10, null], "too long a time between two looks");
  assert.deepEqual(rates([0, 5000], [0, 10], 5000), [null, 2], "as long a time as may be");
  assert.equal(lastRate([0, 1000, 2000], [0, 10, 40], 5000), 20, "over all of them");
  assert.equal(lastRate([0, 1000, 2000, 3000], [90, 0, 10, 40], 5000), 20, "since it began anew");
  assert.equal(lastRate([0, 9000, 10000], [0, 50, 60], 5000), 10, "since the gap");
  for (const [at, values] of [[[], []], [[0], [1]], [[0, 9000], [0, 1]], [[0, 1000], [2, 1]]]) assert.equal(lastRate(at, values, 5000), null);

  const broken = withGaps([0, 1, 9, 10], [{ values: [1, 2, 3, 4] }, { values: [null, 2, 3, 4] }], 5);
  assert.deepEqual(broken, { at: [0, 1, 5, 9, 10], values: [[1, 2, null, 3, 4], [null, 2, null, 3, 4]] });
  assert.deepEqual(withGaps([0, 5], [{ values: [1, 2] }], 5).at, [0, 5]);
});

test("an overview that is sent twice is one sample", async () => {
  const { withFresh } = await load("pages/home/samples.ts");
  const at = (ms) => ({ at_ms: ms });
  assert.deepEqual(withFresh([], [at(1), at(1), at(2)]), [at(1), at(2)]);
  assert.deepEqual(withFresh([at(2)], [at(2), at(1)]), [at(2), at(1)], "a clock that was set back");
  assert.equal(withFresh(Array.from({ length: 300 }, (_, index) => at(index)), [at(300)]).length, 300);
});

test("a rule's rate ends when it falls silent, and begins anew with the look before", async () => {
  const { freshRate, track } = await load("pages/rules/tracked.ts");
  const rate = (tracked, nowMs) => freshRate(tracked, "matchedPerSecond", nowMs);
  const first = track(undefined, counters(5), 1000);
  assert.equal(rate(undefined, 0), null);
  assert.equal(rate(first, 1000), null, "one look makes no rate");
  const second = track(first, counters(15), 2000);
  assert.equal(rate(second, 2000), 10);
  assert.equal(rate(second, 5499), 10);
  assert.equal(rate(second, 5500), 0, "nothing was heard since");
  const woken = track(second, counters(115), 62_000);
  assert.equal(rate(woken, 62_000), 100, "the minute of silence doesn't count");
  assert.equal(rate(track(woken, counters(1), 63_000), 63_000), null, "a counter that began anew");
});

test("of messages so many and so many bytes are kept, the last of them", async () => {
  const { KEPT_BYTES_MAX, KEPT_MESSAGES_MAX, MessageLog } = await load("pages/mqtt/messageLog.ts");
  const message = (topic, bytes) => ({ topic, payload: new Uint8Array(bytes), bytes });
  const small = new MessageLog();
  for (let index = 0; index < KEPT_MESSAGES_MAX + 5; index += 1) small.add(message(String(index), 1));
  assert.equal(small.take().messages.length, KEPT_MESSAGES_MAX);
  assert.equal(small.take().messages.at(-1).topic, String(KEPT_MESSAGES_MAX + 4));
  const big = new MessageLog();
  const each = 1024 * 1024;
  for (let index = 0; index < 100; index += 1) big.add(message(String(index), each));
  const { messages, total } = big.take();
  const bytes = messages.reduce((sum, one) => sum + one.payload.length, 0);
  assert.ok(bytes > KEPT_BYTES_MAX * 0.9 && bytes <= KEPT_BYTES_MAX * 1.1, `${bytes} bytes are kept`);
  assert.deepEqual([messages.at(-1).topic, total], ["99", 100]);
  const huge = new MessageLog();
  huge.add(message("a", KEPT_BYTES_MAX * 2));
  assert.equal(huge.take().messages.length, 1, "the last one is kept, however big");
});

test("a payload is text when it is UTF-8, also where it was cut within a character", async () => {
  const { hexOf, utf8Of } = await load("text/payload.ts");
  const bytes = new TextEncoder().encode("grüße");
  assert.equal(utf8Of(bytes, false), "grüße");
  assert.equal(utf8Of(bytes.slice(0, 3), true), "gr");
  assert.equal(utf8Of(bytes.slice(0, 3), false), undefined, "a whole payload that ends within a character is no text");
  assert.equal(utf8Of(Uint8Array.of(0xff, 0x41), true), undefined);
  assert.equal(hexOf(Uint8Array.of(0, 255, 16)), "00 ff 10");
});

test("a finding stands where it is, whatever characters stand before it", async () => {
  const { findsOf } = await load("editor/findings.ts");
  const sql = "SELECT '🌡🌡' AS x, roud(t) FROM 'a'";
  const column = [...sql.slice(0, sql.indexOf("roud"))].length + 1;
  const fault = { line: 3, column, code: "R0202", message: "[R0202] no such function", detail: `  ${sql}\n  ^^^^ help: round` };
  const { diagnostics } = findsOf({ faults: [fault], warnings: [] }, { text: `\n\n${sql}`, sqlLine: 3 }, sql);
  assert.equal(sql.slice(diagnostics[0].from, diagnostics[0].to), "roud");
  const behind = findsOf({ faults: [{ ...fault, column: 999, detail: "" }], warnings: [] }, { text: `\n\n${sql}`, sqlLine: 3 }, sql).diagnostics[0];
  assert.ok(behind.from <= sql.length && behind.to <= sql.length);
});

test("a finding stands where it is, also where the file writes the statement otherwise", async () => {
  const { findsOf } = await load("editor/findings.ts");
  const { ruleToml } = await load("text/toml.ts");
  const sql = `SELECT '''' AS q,\n  'a\\b' || "x\u0001y" AS s, roud(t)\nFROM 'a' WHERE "\\" = roud(t)`;
  const rule = ruleToml("r", { sql, actions: [] });
  for (const line of [2, 3]) {
    const written = rule.text.split("\n")[rule.sqlLine + line - 2];
    assert.ok(written.includes("\\\\"), "the line is written with escapes");
    const column = [...written.slice(0, written.indexOf("roud"))].length + 1;
    const fault = { line: rule.sqlLine + line - 1, column, code: "R0202", message: "no such function", detail: "^^^^" };
    const { diagnostics } = findsOf({ faults: [fault], warnings: [] }, rule, sql);
    assert.equal(sql.slice(diagnostics[0].from, diagnostics[0].to), "roud", `line ${line}`);
    assert.equal(sql.slice(0, diagnostics[0].from).split("\n").length, line);
  }
});

test("an action's form has a field for every key of the schema", async () => {
  const { FORMS, RULE_FIELDS } = await load("pages/editor/actionForms.ts");
  const schema = JSON.parse(readFileSync(new URL("../../config/rules.schema.json", import.meta.url), "utf8"));
  const kinds = schema.$defs.Action.oneOf;
  assert.deepEqual(FORMS.map((form) => form.type), kinds.map((kind) => kind.properties.type.const));
  for (const kind of kinds) {
    const form = FORMS.find((one) => one.type === kind.properties.type.const);
    const keys = [...form.main, ...form.more].map((field) => field.key);
    const wanted = Object.keys(kind.properties).filter((key) => !["name", "type", "connector"].includes(key));
    assert.deepEqual(keys.sort(), wanted.sort(), form.type);
    assert.notEqual(form.label, form.type, `${form.type} has a name in words`);
    for (const key of kind.required) {
      if (wanted.includes(key)) assert.ok(form.main.some((field) => field.key === key), `${form.type}.${key} is needed and seen at once`);
    }
  }
  const field = (type, key) => [...FORMS.find((form) => form.type === type).main, ...FORMS.find((form) => form.type === type).more].find((one) => one.key === key);
  assert.deepEqual([field("http", "headers").kind, field("http", "queue").kind, field("http", "retry_on").kind], ["pairs", "group", "numbers"]);
  assert.deepEqual([field("republish", "qos").kind, field("republish", "strict").kind, field("kafka", "partition").kind], ["scalar", "flag", "number"]);
  assert.deepEqual(field("kafka", "compression").options.map((option) => option.value), ["none", "gzip", "snappy"]);
  assert.ok(field("http", "queue").fields.some((one) => one.key === "max_age"));
  assert.deepEqual(RULE_FIELDS.map((one) => one.key).sort(), ["description", "dialect", "on_remove", "run_as", "skip_empty", "tags"]);
});

test("what is written in a field is what its kind takes", async () => {
  const { valueOf } = await load("pages/editor/actionForms.ts");
  for (const [kind, text, value] of [
    ["text", "007", "007"],
    ["text", "true", "true"],
    ["long", "12", "12"],
    ["number", "12", 12],
    ["number", "007", "007"],
    ["number", "-1", "-1"],
    ["number", "99999999999999999999", "99999999999999999999"],
    ["scalar", "1", 1],
    ["scalar", "true", true],
    ["scalar", "${qos()}", "${qos()}"],
    ["flag", "false", false],
    ["words", "a, b ,", ["a", "b"]],
    ["numbers", "404, x", [404, "x"]],
    ["choice", "gzip", "gzip"],
  ]) assert.deepEqual(valueOf(kind, text), value, `${kind} ${text}`);
  for (const kind of ["text", "number", "flag", "words", "choice"]) assert.equal(valueOf(kind, ""), undefined, `${kind}: nothing`);
});

test("numbers are written as people read them, also at the edge of a unit", async () => {
  const { bytes, duration, rate } = await load("text/format.ts");
  for (const [ms, text] of [
    [0, "0 ms"], [999.4, "999 ms"], [999.6, "1.0 s"], [9_940, "9.9 s"], [9_960, "10 s"], [59_400, "59 s"], [59_600, "1 min 0 s"], [599_600, "10 min 0 s"],
    [3_599_600, "1 h 0 min"], [172_799_000, "2 d 0 h"], [90_000_000 * 3, "3 d 3 h"],
  ]) assert.equal(duration(ms), text, `${ms} ms`);
  for (const [value, text] of [[0, "0 B"], [1023, "1023 B"], [1024, "1.0 KiB"], [1024 * 99.96, "100 KiB"], [1024 * 1023.6, "1.0 MiB"]]) assert.equal(bytes(value), text, `${value} bytes`);
  for (const [value, text] of [[0, "0"], [0.001, "<0.01"], [0.25, "0.25"], [0.999, "1.0"], [9.96, "10"], [12_345, "12.3K"]]) assert.equal(rate(value), text, `${value}/s`);
});
