// A payload that one writes: as JSON, text or hexadecimal.
import { type PayloadFormat, pretty } from "../text/payload";

interface Written {
  format: PayloadFormat;
  text: string;
}

export function PayloadField({ name, value, set }: { name: string; value: Written; set: (change: Partial<Written>) => void }) {
  return (
    <>
      <div class="payload-head">
        <fieldset class="segments">
          <legend class="hidden">Payload format</legend>
          {(["json", "text", "hex"] as PayloadFormat[]).map((format) => (
            <label key={format}>
              <input type="radio" name={name} checked={value.format === format} onChange={() => set({ format })} />
              <span>{format === "text" ? "Text" : format.toUpperCase()}</span>
            </label>
          ))}
        </fieldset>
        {value.format === "json" && (
          <button type="button" class="quiet" onClick={() => set({ text: pretty(value.text) })}>
            Indent
          </button>
        )}
      </div>
      <label>
        <span class="hidden">Payload</span>
        <textarea class="mono" rows={5} value={value.text} spellcheck={false} onInput={(event) => set({ text: event.currentTarget.value })} />
      </label>
    </>
  );
}
