// Topic Filters against Topic Names, and the filters that a statement names: for what the console itself has to decide.

/** Whether a filter selects a topic, as MQTT has it: a wildcard at the start selects no topic that begins with `$`. */
export function matches(filter: string, topic: string): boolean {
  const want = filter.split("/");
  const have = topic.split("/");
  if (topic.startsWith("$") && (want[0] === "#" || want[0] === "+")) return false;
  for (let level = 0; level < want.length; level += 1) {
    if (want[level] === "#") return true;
    if (level >= have.length) return false;
    if (want[level] !== "+" && want[level] !== have[level]) return false;
  }
  return want.length === have.length;
}

/** The filters behind FROM, as far as the text is written. */
export function filtersOf(sql: string): string[] {
  const from = /\bfrom\s+((?:'[^']*'|"[^"]*")(?:\s*,\s*(?:'[^']*'|"[^"]*"))*)/i.exec(sql);
  if (!from?.[1]) return [];
  return [...from[1].matchAll(/'([^']*)'|"([^"]*)"/g)].map((match) => match[1] ?? match[2] ?? "");
}
