// The difference of two texts by lines, small enough to be shown beside each other.

export interface DiffLine {
  kind: "same" | "removed" | "added";
  text: string;
}

/** Most lines of either side that are compared line by line; beyond it one side replaces the other. */
const LINES_MAX = 1_000;

export function diffLines(before: string, after: string): DiffLine[] {
  const old = before.split("\n");
  const now = after.split("\n");
  if (old.length > LINES_MAX || now.length > LINES_MAX) {
    return [...old.map((text) => line("removed", text)), ...now.map((text) => line("added", text))];
  }
  // Longest common subsequence, from the end.
  const width = now.length + 1;
  const lengths = new Uint16Array((old.length + 1) * width);
  const at = (row: number, column: number) => lengths[row * width + column] ?? 0;
  for (let row = old.length - 1; row >= 0; row -= 1) {
    for (let column = now.length - 1; column >= 0; column -= 1) {
      lengths[row * width + column] =
        old[row] === now[column] ? at(row + 1, column + 1) + 1 : Math.max(at(row + 1, column), at(row, column + 1));
    }
  }
  const lines: DiffLine[] = [];
  let row = 0;
  let column = 0;
  while (row < old.length && column < now.length) {
    if (old[row] === now[column]) {
      lines.push(line("same", old[row] ?? ""));
      row += 1;
      column += 1;
    } else if (at(row + 1, column) >= at(row, column + 1)) {
      lines.push(line("removed", old[row++] ?? ""));
    } else {
      lines.push(line("added", now[column++] ?? ""));
    }
  }
  while (row < old.length) lines.push(line("removed", old[row++] ?? ""));
  while (column < now.length) lines.push(line("added", now[column++] ?? ""));
  return lines;
}

function line(kind: DiffLine["kind"], text: string): DiffLine {
  return { kind, text };
}
