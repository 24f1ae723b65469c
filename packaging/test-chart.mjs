// Run by test-chart.sh: validates objects for Prometheus Operator, one JSON text a line on stdin, by the operator's schemas.
import { createInterface } from "node:readline";
import * as kinds from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

let count = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const object = JSON.parse(line);
  try {
    new kinds[object.kind](object).validate();
  } catch (error) {
    console.error(`${object.kind} ${object.metadata.name}: ${error.message}`);
    process.exit(1);
  }
  count += 1;
}
if (count < 3) {
  console.error(`only ${count} objects for Prometheus Operator`);
  process.exit(1);
}
