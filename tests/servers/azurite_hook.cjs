"use strict";
// Loaded by node before Azurite: counts what its server sees, says where it listens in one JSON line on
// standard output (where Azurite's own messages then go is standard error), and ends with standard input.
const fs = require("fs");
const http = require("http");
const net = require("net");

const counted = { connections: 0, opened: 0, requests: 0 };
process.stdout.write = process.stderr.write.bind(process.stderr);
process.stdin.on("end", () => process.exit()).resume();

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, ...values) {
  if (event === "connection") {
    counted.connections += 1;
    counted.opened += 1;
    values[0].once("close", () => (counted.connections -= 1));
  } else if (event === "request") {
    counted.requests += 1;
  } else if (event === "listening") {
    // A server that closed idle connections itself would hide clients that never do. Azurite has an option for
    // this, --blobKeepAliveTimeout, but closes them after 5 seconds all the same.
    this.keepAliveTimeout = 3600 * 1000;
    const port = this.address().port;
    // A reader that left early must not end the server.
    const statistics = net.createServer((socket) => socket.on("error", () => {}).end(JSON.stringify(counted)));
    statistics.listen(0, "127.0.0.1", () => {
      const statistics_port = statistics.address().port;
      fs.writeSync(1, JSON.stringify({ url: `http://127.0.0.1:${port}`, port, statistics_port }) + "\n");
    });
  }
  return emit.call(this, event, ...values);
};
