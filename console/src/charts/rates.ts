// Counters into rates. A counter that became smaller began anew: there is no rate then, and the chart has a gap. Nor is there one where
// too long a time lies between two looks.

/** Per second between each value and the one before. The first has none, and none that comes later than `gapMs` after the one before. */
export function rates(atMs: number[], values: (number | null)[], gapMs = Infinity): (number | null)[] {
  return values.map((value, index) => {
    const before = index > 0 ? values[index - 1] : null;
    const now = atMs[index];
    const then = atMs[index - 1];
    if (value === null || before === null || before === undefined || now === undefined || then === undefined) return null;
    const seconds = (now - then) / 1000;
    return seconds <= 0 || seconds * 1000 > gapMs || value < before ? null : (value - before) / seconds;
  });
}

/** The rate from the first value to the last; null where nothing is known of one, as long as there are no two values or over a gap. */
export function lastRate(atMs: number[], values: number[], gapMs: number): number | null {
  const known = rates(atMs, values, gapMs);
  let first = known.length;
  while (first > 0 && (known[first - 1] ?? null) !== null) first -= 1;
  const from = first - 1;
  if (from < 0 || first >= known.length) return null;
  return rates([atMs[from] ?? 0, atMs.at(-1) ?? 0], [values[from] ?? 0, values.at(-1) ?? 0])[1] ?? null;
}

/** The values with a break between two that are too far apart. */
export function withGaps(at: number[], series: { values: (number | null)[] }[], gap: number): { at: number[]; values: (number | null)[][] } {
  const times: number[] = [];
  const values: (number | null)[][] = series.map(() => []);
  for (const [index, time] of at.entries()) {
    const before = at[index - 1];
    if (before !== undefined && time - before > gap) {
      times.push((before + time) / 2);
      for (const column of values) column.push(null);
    }
    times.push(time);
    for (const [column, one] of series.entries()) values[column]?.push(one.values[index] ?? null);
  }
  return { at: times, values };
}
