// Rules to begin with: what one most often wants, small enough to be read at a glance.
import type { Definition } from "../../api/types";
import { EMPTY_INPUT, type Input } from "./draft";

export interface Example {
  title: string;
  definition: Definition;
  input: Input;
}

export const EXAMPLES: Example[] = [
  {
    title: "An alarm when a reading is too high",
    definition: {
      description: "readings above 60 degrees become alarms",
      sql: "SELECT temperature AS t,\n       topic(2) AS site\nFROM 'sensors/+/temp'\nWHERE temperature > 60",
      actions: [{ name: "alarm", type: "republish", topic: "alarms/${topic(2)}", qos: 1 }],
    },
    input: { ...EMPTY_INPUT, topic: "sensors/furnace/temp", text: '{"temperature": 64.5, "unit": "C"}' },
  },
  {
    title: "Every message to an HTTP service",
    definition: {
      description: "what sensors send goes to a service, with the time and the topic",
      sql: "SELECT *,\n       topic() AS topic,\n       timestamp() AS at_ms\nFROM 'sensors/#'",
      actions: [{ name: "service", type: "http", url: "https://service.example/readings" }],
    },
    input: { ...EMPTY_INPUT, topic: "sensors/hall/temp", text: '{"temperature": 21.5}' },
  },
  {
    title: "Other units and other names",
    definition: {
      description: "Celsius becomes Fahrenheit",
      sql: "SELECT device.id AS device,\n       round(temperature * 9 / 5 + 32) AS fahrenheit\nFROM 'sensors/+/temp'\nWHERE unit = 'C'",
      actions: [{ name: "converted", type: "republish", topic: "fahrenheit/${topic(2)}" }],
    },
    input: { ...EMPTY_INPUT, topic: "sensors/hall/temp", text: '{"device": {"id": "t-17"}, "temperature": 21.5, "unit": "C"}' },
  },
  {
    title: "Which client said so: low batteries",
    definition: {
      description: "batteries that should be changed, by client",
      sql: "SELECT clientid() AS client,\n       battery\nFROM 'devices/+/status'\nWHERE battery < 20 AND state <> 'off'",
      actions: [{ name: "line", type: "log", level: "warn" }],
    },
    input: { ...EMPTY_INPUT, topic: "devices/d-1/status", clientId: "d-1", text: '{"battery": 12, "state": "on"}' },
  },
];
