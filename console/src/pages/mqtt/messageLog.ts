// Messages that came to the page: the last of them, gathered between renders, and counted while paused.
import type { UserProperty } from "../../api/types";

export interface Incoming {
  topic: string;
  /** The payload as far as it is kept. */
  payload: Uint8Array;
  /** The same as text; undefined when it isn't UTF-8. */
  text: string | undefined;
  /** Bytes of the whole payload. */
  bytes: number;
  qos: number;
  retain: boolean;
  at: number;
  contentType: string;
  responseTopic: string;
  userProperties: UserProperty[];
}

/** Messages that are kept, and bytes of their payloads. */
export const KEPT_MESSAGES_MAX = 10_000;
export const KEPT_BYTES_MAX = 32 * 1024 * 1024;

/** Bytes of one payload that are kept. */
export const PAYLOAD_BYTES_MAX = 64 * 1024;

export class MessageLog {
  paused = false;
  changed = false;
  private kept: Incoming[] = [];
  private keptBytes = 0;
  private shown: Incoming[] = [];
  private total = 0;
  private waiting = 0;

  add(message: Incoming): void {
    this.kept.push(message);
    this.keptBytes += message.payload.length;
    // Cut in steps, so that a full log costs nothing for each message.
    if (this.kept.length > KEPT_MESSAGES_MAX * 1.1 || this.keptBytes > KEPT_BYTES_MAX * 1.1) this.cut();
    this.total += 1;
    if (this.paused) this.waiting += 1;
    this.changed = true;
  }

  clear(): void {
    this.kept = [];
    this.keptBytes = 0;
    this.shown = [];
    this.total = 0;
    this.waiting = 0;
    this.changed = true;
  }

  /** What is to be shown now. */
  take(): { messages: Incoming[]; waiting: number; total: number } {
    if (!this.paused) {
      this.waiting = 0;
      this.shown = this.kept.slice(-KEPT_MESSAGES_MAX);
    }
    this.changed = false;
    return { messages: this.shown, waiting: this.waiting, total: this.total };
  }

  private cut(): void {
    let first = Math.max(0, this.kept.length - KEPT_MESSAGES_MAX);
    let bytes = this.kept.slice(first).reduce((sum, message) => sum + message.payload.length, 0);
    while (bytes > KEPT_BYTES_MAX && first < this.kept.length - 1) bytes -= this.kept[first++]?.payload.length ?? 0;
    this.kept = this.kept.slice(first);
    this.keptBytes = bytes;
  }
}
