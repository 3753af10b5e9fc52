// Below a list that comes in pages: which of its entries are shown, and the way to the others.
import type { Turning } from "../api/pages";
import { count, plural } from "../text/format";

interface Props {
  of: Turning;
  shown: number;
  what: string;
  /** How many there are on all pages, where that is known. */
  total?: number | null | undefined;
}

export function ListFoot({ of, shown, what, total }: Props) {
  const last = of.first + shown - 1;
  const isWhole = !of.goBack && !of.goOn;
  const all = total ? ` of ${plural(total, what)}` : of.goOn ? `; there are more ${what}s` : ` of ${plural(last, what)}`;
  const turn = (act: () => void) => {
    act();
    window.scrollTo(0, 0);
  };
  return (
    <nav class="list-foot" aria-label={`Pages of ${what}s`}>
      <span role="status">{isWhole ? plural(shown, what) : `${count(of.first)} to ${count(last)}${all}`}</span>
      {!isWhole && (
        <>
          <button type="button" disabled={!of.goBack} onClick={() => of.goBack && turn(of.goBack)}>
            Previous
          </button>
          <button type="button" disabled={!of.goOn} onClick={() => of.goOn && turn(of.goOn)}>
            Next
          </button>
        </>
      )}
    </nav>
  );
}
