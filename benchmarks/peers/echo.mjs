// What benchmarks/stream.py compares with: the same echo by MQTT.js, and, where a model is named, a step of it by
// onnxruntime-node for every reading before its echo, micro-batched over the streams. Nothing here is durable: MQTT.js
// acknowledges a message when it has handed it over, and the states live in memory.
//
//   node echo.mjs '{"port": 1883, "qos": 1, "model": "model.onnx", "inputs": 5, "states": [["h", "next_h", 32]]}'

import mqtt from "mqtt";

const settings = JSON.parse(process.argv[2]);
let client;

function answer(topic, payload) {
  client.publish("out" + topic.slice(2), payload, { qos: settings.qos });
}

/** Steps every stream of a batch once, in one run; streams that have more readings wait for the next. */
async function stepper() {
  const { InferenceSession, Tensor } = (await import("onnxruntime-node")).default;
  const session = await InferenceSession.create(settings.model, {
    intraOpNumThreads: 1, interOpNumThreads: 1,
    extra: { session: { intra_op: { allow_spinning: "0" } } },
  });
  const states = new Map(); // by stream, one array a state
  let waiting = [], running = false;

  async function run() {
    running = true;
    while (waiting.length) {
      const batch = new Map(), later = [];
      for (const message of waiting) {
        if (batch.has(message.topic)) later.push(message);
        else batch.set(message.topic, message);
      }
      waiting = later;
      const rows = [...batch.values()];
      const features = new Float32Array(rows.length * settings.inputs);
      rows.forEach((row, index) => {
        const reading = JSON.parse(row.payload);
        features[index * settings.inputs] = reading.pressure;
        features[index * settings.inputs + 1] = reading.flow;
      });
      const feeds = { features: new Tensor("float32", features, [rows.length, settings.inputs]) };
      settings.states.forEach(([name, , size], number) => {
        const data = new Float32Array(rows.length * size);
        rows.forEach((row, index) => { const kept = states.get(row.topic); if (kept) data.set(kept[number], index * size); });
        feeds[name] = new Tensor("float32", data, [1, rows.length, size]);
      });
      const results = await session.run(feeds);
      const width = results.prediction.dims.at(-1);
      rows.forEach((row, index) => {
        states.set(row.topic, settings.states.map(([, next, size]) =>
          results[next].data.slice(index * size, (index + 1) * size)));
        const values = Array.from(results.prediction.data.subarray(index * width, (index + 1) * width));
        answer(row.topic, JSON.stringify({ stream: row.topic, predictions: values }));
      });
    }
    running = false;
  }

  return (topic, payload) => {
    waiting.push({ topic, payload });
    if (!running) { running = true; setImmediate(run); }
  };
}

const take = settings.model ? await stepper() : answer;
client = mqtt.connect({
  host: "127.0.0.1", port: settings.port, protocolVersion: 5, properties: { receiveMaximum: 65535 },
});
client.on("message", take);
client.on("connect", () => {
  client.subscribe("in/#", { qos: settings.qos }, () => client.publish("ready", "ready", { qos: 1 }));
});
process.on("SIGTERM", () => process.exit(0));
