// Payloads as people write them: JSON, text or hexadecimal.

export type PayloadFormat = "json" | "text" | "hex";

/** The bytes of a hexadecimal text; null when it isn't one. Spaces and `0x` may stand between. */
export function fromHex(text: string): Uint8Array | null {
  const digits = text.replace(/0x/gi, "").replace(/[\s:,]/g, "");
  if (digits.length % 2 !== 0 || /[^0-9a-f]/i.test(digits)) return null;
  const bytes = new Uint8Array(digits.length / 2);
  for (let index = 0; index < bytes.length; index += 1) bytes[index] = parseInt(digits.slice(index * 2, index * 2 + 2), 16);
  return bytes;
}

export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

export function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

export function hexOfBase64(base64: string): string {
  return hexOf(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)));
}

/** Bytes as text; undefined when they are no UTF-8. Of what was cut off the last character may be half. */
export function utf8Of(bytes: Uint8Array, isCut: boolean): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: isCut });
  } catch {
    return undefined;
  }
}

/** What is wrong with a payload as it is written; null: nothing. */
export function payloadFault(format: PayloadFormat, text: string): string | null {
  if (format === "hex" && fromHex(text) === null) return "Not hexadecimal: two digits for each byte are needed.";
  if (format === "json" && text.trim() !== "") {
    try {
      JSON.parse(text);
    } catch (thrown) {
      return `Not JSON: ${thrown instanceof Error ? thrown.message : "unreadable"}. It is sent as it stands.`;
    }
  }
  return null;
}

/** As members of a request: text as text, bytes in base64. */
export function payloadMembers(format: PayloadFormat, text: string): { payload?: string; payload_base64?: string } {
  if (format === "hex") return { payload_base64: toBase64(fromHex(text) ?? new Uint8Array()) };
  return { payload: text };
}

/** Text in lines and indented when it is JSON, else as it is. */
export function pretty(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    return value !== null && typeof value === "object" ? JSON.stringify(value, null, 2) : text;
  } catch {
    return text;
  }
}
