// The page's MQTT client: MQTT.js over the gateway's WebSocket. No password goes along: the session says who it is.
import mqtt, { type IClientPublishOptions, type MqttClient } from "mqtt";
import { fromHex, utf8Of } from "../../text/payload";
import { type Incoming, PAYLOAD_BYTES_MAX } from "./messageLog";
import type { Outgoing } from "./PublishForm";

export type ConsoleState = "offline" | "connecting" | "connected";

export interface ConsoleClient {
  subscribe(filter: string, qos: number): Promise<void>;
  unsubscribe(filter: string): Promise<void>;
  /** Says what became of it. */
  publish(outgoing: Outgoing): Promise<string>;
  end(): void;
}

interface Handlers {
  onState: (state: ConsoleState) => void;
  onCause: (cause: string | null) => void;
  onMessage: (message: Incoming) => void;
}

/** Milliseconds until a lost connection is tried again. */
const AGAIN_MS = 3_000;

/** Reason Codes as the specification names them; those that somebody may meet here. */
const REASONS: Record<number, string> = {
  0x80: "unspecified error",
  0x83: "implementation specific error",
  0x87: "not authorized",
  0x89: "server busy",
  0x8b: "server shutting down",
  0x8d: "Keep Alive timeout",
  0x8e: "session taken over",
  0x8f: "Topic Filter invalid",
  0x90: "Topic Name invalid",
  0x93: "Receive Maximum exceeded",
  0x95: "packet too large",
  0x96: "message rate too high",
  0x97: "quota exceeded",
  0x98: "administrative action",
  0x99: "payload format invalid",
  0x9e: "Shared Subscriptions not supported",
  0xa2: "Wildcard Subscriptions not supported",
};

function reasonText(code: number): string {
  const hex = `0x${code.toString(16).toUpperCase().padStart(2, "0")}`;
  return REASONS[code] ? `${REASONS[code]}, ${hex}` : hex;
}

export function connectHere(clientId: string, handlers: Handlers): ConsoleClient {
  const { protocol, host } = window.location;
  const client = mqtt.connect(`${protocol === "https:" ? "wss" : "ws"}://${host}/api/v1/mqtt`, {
    clientId,
    protocolVersion: 5,
    clean: true,
    reconnectPeriod: AGAIN_MS,
    connectTimeout: 10_000,
    // The other kinds of timers run in a worker, which the page's policy doesn't let in.
    timerVariant: "native",
  });
  let isEnded = false;
  handlers.onState("connecting");
  client.on("connect", () => {
    handlers.onCause(null);
    handlers.onState("connected");
  });
  client.on("close", () => !isEnded && handlers.onState("connecting"));
  client.on("error", (error) => handlers.onCause(error.message));
  client.on("disconnect", (packet) => handlers.onCause(`the gateway ended the connection (${reasonText(packet.reasonCode ?? 0)})`));
  client.on("message", (topic, payload, packet) => {
    const { contentType, responseTopic, userProperties } = packet.properties ?? {};
    // A copy: what MQTT.js hands out is a part of all that came with it.
    const kept = payload.slice(0, PAYLOAD_BYTES_MAX);
    handlers.onMessage({
      topic,
      payload: kept,
      text: utf8Of(kept, kept.length < payload.length),
      bytes: payload.length,
      qos: packet.qos,
      retain: packet.retain,
      at: Date.now(),
      contentType: contentType ?? "",
      responseTopic: responseTopic ?? "",
      userProperties: Object.entries(userProperties ?? {}).flatMap(([name, value]) =>
        (Array.isArray(value) ? value : [value]).map((one) => ({ name, value: String(one) })),
      ),
    });
  });
  return {
    subscribe: async (filter, qos) => {
      const granted = await client.subscribeAsync(filter, { qos: qos as 0 | 1 | 2 });
      const refused = granted.find((one) => one.qos >= 128);
      if (refused) throw new Error(`the subscription to ${filter} is refused (${reasonText(refused.qos)})`);
    },
    unsubscribe: async (filter) => void (await client.unsubscribeAsync(filter)),
    publish: (outgoing) => publish(client, outgoing),
    end: () => {
      isEnded = true;
      client.end(true);
    },
  };
}

async function publish(client: MqttClient, outgoing: Outgoing): Promise<string> {
  const options: IClientPublishOptions = { qos: outgoing.qos as 0 | 1 | 2, retain: outgoing.retain };
  const properties: NonNullable<IClientPublishOptions["properties"]> = {};
  if (outgoing.contentType) properties.contentType = outgoing.contentType;
  if (outgoing.responseTopic) properties.responseTopic = outgoing.responseTopic;
  if (outgoing.expiryS) properties.messageExpiryInterval = Number(outgoing.expiryS);
  if (outgoing.isText) properties.payloadFormatIndicator = true;
  if (outgoing.userProperties.length) {
    const pairs: Record<string, string[]> = {};
    for (const { name, value } of outgoing.userProperties) (pairs[name] ??= []).push(value);
    properties.userProperties = pairs;
  }
  if (Object.keys(properties).length) options.properties = properties;
  const bytes = outgoing.format === "hex" ? (fromHex(outgoing.text) ?? new Uint8Array()) : new TextEncoder().encode(outgoing.text);
  // MQTT.js has a Buffer of its own, which is a Uint8Array; its types name Node's.
  const answer = await client.publishAsync(outgoing.topic, bytes as never, options);
  const reason = (answer as { reasonCode?: number } | undefined)?.reasonCode ?? 0;
  if (reason >= 128) throw new Error(`the gateway refused the message (${reasonText(reason)})`);
  if (outgoing.qos === 0) return `Sent to ${outgoing.topic}; with QoS 0 nobody confirms`;
  return `Published to ${outgoing.topic}`;
}
