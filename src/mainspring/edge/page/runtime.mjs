// Answers from a document in JavaScript: the request's contract, functions, encoder, model, offset, calibration, interval, limits.

export class RequestError extends Error {
  constructor(field, message) {
    super(field ? `${field}: ${message}` : message);
    this.field = field;
  }
}

// What NumPy's functions are for one number; NaN stands for null.
export const numpy = {
  where: (condition, yes, no) => (condition ? yes : no),
  isnan: Number.isNaN,
  isfinite: Number.isFinite,
  nan_to_num: (x, nan = 0) => (Number.isNaN(x) ? nan : Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, x))),
  clip: (x, low, high) => Math.min(Math.max(x, low), high),
  radians: (x) => x * (Math.PI / 180),
  degrees: (x) => x * (180 / Math.PI),
  mod: (a, b) => {
    const rest = a % b;
    return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
  },
  floor_divide: (a, b) => {
    const whole = (a - numpy.mod(a, b)) / b;
    const floor = Math.floor(whole);
    return whole - floor > 0.5 ? floor + 1 : floor;
  },
};

export class Embedded {
  constructor(document, sessions, functions, ort) {
    Object.assign(this, { document, sessions, functions, ort, turn: Promise.resolve() });
  }

  // The answer to one request, a JSON object as the service takes it; `given` holds features that are not computed here.
  async answer(request, given = {}) {
    const said = this.document;
    const { values, unavailable } = this.features(this.checked(request), given);
    let [answeredBy, because, low, high] = ["model", null, null, null];
    let score;
    const offset = said.offset === null ? 0 : values[said.offset];
    if (offset === null && said.offset in said.encoder.medians) {
      because = `feature '${said.offset}' is null, and the model corrects it; it never was null in training`;
      [answeredBy, score] = rule(said, values, because);
    } else {
      [score, low, high] = await this.predicted(values, offset ?? 0);
    }
    const answer = { system: said.system, [said.label]: this.clipped(score), answered_by: answeredBy, version: said.version };
    if (low !== null) answer.interval = { low: this.clipped(low), high: this.clipped(high), quantiles: said.quantiles };
    if (because !== null) answer.because = because;
    if (unavailable.size) answer.flags = Object.fromEntries([...unavailable].sort().map((name) => [name, "unavailable"]));
    return answer;
  }

  async predicted(values, offset) {
    const { encoder, interval } = this.document;
    const row = encoder.names.map((name) => encoded(encoder, name, values[name]));
    const score = this.corrected(await this.run("model", row)) + offset;
    if (interval === null) return [score, null, null];
    if (interval.edges) {
      const place = interval.edges.filter((edge) => edge <= score).length;
      return [score, score + interval.low[place], score + interval.high[place]];
    }
    const below = (await this.run("low", row)) + interval.below + offset;
    const above = (await this.run("high", row)) + interval.above + offset;
    return [score, Math.min(below, score), Math.max(above, score)];
  }

  // One after another: a session answers one question at a time.
  run(name, row) {
    const asked = this.turn.then(async () => {
      const x = new this.ort.Tensor("float64", Float64Array.from(row), [1, row.length]);
      return (await this.sessions[name].run({ x }, ["prediction"])).prediction.data[0];
    });
    this.turn = asked.catch(() => undefined);
    return asked;
  }

  corrected(predicted) {
    const { kept, calibration } = this.document;
    const whole = kept === 1 ? predicted : predicted / (predicted + (1 - predicted) / kept);
    if (calibration === null) return whole;
    if (calibration.kind === "isotonic") return interpolated(whole, calibration.points, calibration.values);
    const p = Math.min(Math.max(whole, 1e-12), 1 - 1e-12);
    const slope = calibration.slope ?? calibration.sharpness;
    return 0.5 * (1 + Math.tanh((slope * Math.log(p / (1 - p)) + (calibration.shift ?? 0)) / 2));
  }

  clipped(value) {
    const { floor, ceiling } = this.document;
    const raised = floor === null ? value : Math.max(value, floor);
    return ceiling === null ? raised : Math.min(raised, ceiling);
  }

  checked(request) {
    const rules = this.document.request;
    const strange = Object.keys(request).find((name) => !rules.some((one) => one.name === name));
    if (strange !== undefined) throw new RequestError(strange, "is not known");
    return Object.fromEntries(rules.map((one) => [one.name, valid(one, request[one.name])]));
  }

  features(row, given) {
    const said = this.document;
    const strange = Object.keys(given).find((name) => !said.given.some((one) => one.name === name));
    if (strange !== undefined) throw new RequestError(strange, "is not a feature that is given");
    const values = { ...row };
    const unavailable = new Set(said.given.map((one) => one.name).filter((name) => !(name in given)));
    for (const one of said.given) values[one.name] = one.name in given ? typed(one, given[one.name]) : one.default;
    const types = Object.fromEntries([...said.request, ...said.given, ...said.functions].map((one) => [one.name, one.type]));
    for (const one of said.functions) {
      if (one.inputs.some((name) => unavailable.has(name))) {
        unavailable.add(one.name);
        values[one.name] = one.default;
      } else {
        const inputs = one.inputs.map((name) => (types[name] === "float" ? (values[name] ?? NaN) : values[name]));
        values[one.name] = result(one, this.functions[one.name](...inputs));
      }
    }
    return { values, unavailable };
  }
}

function encoded(encoder, name, value) {
  const codes = encoder.categories[name];
  // A set of codes reads NaN as 0 in WebAssembly; where a model tells NaN and a code that is not learned not apart, that stands for it.
  const missing = codes === undefined ? (encoder.medians[name] ?? NaN) : (encoder.unknown ?? NaN);
  if (value === null) return missing;
  if (codes === undefined) return Number(value);
  return Object.hasOwn(codes, value) ? codes[value] : missing;
}

function rule(said, values, because) {
  if (!said.rules.length) throw new RequestError("", `nothing can answer: ${because}`);
  const [one] = said.rules;
  return [one.name, one.intercept + one.slope * (values[one.on] ?? one.typical)];
}

function interpolated(x, points, values) {
  if (x <= points[0]) return values[0];
  const last = points.length - 1;
  if (x >= points[last]) return values[last];
  let place = 0;
  while (points[place + 1] <= x) place += 1;
  return ((values[place + 1] - values[place]) / (points[place + 1] - points[place])) * (x - points[place]) + values[place];
}

const NAMED = { str: "text", int: "a whole number", float: "a number", bool: "true or false", instant: "a date and time in ISO 8601" };
const HOLDS = {
  str: (value) => typeof value === "string",
  int: (value) => Number.isSafeInteger(value),
  float: (value) => typeof value === "number" && Number.isFinite(value),
  bool: (value) => typeof value === "boolean",
  instant: (value) => typeof value === "string",
  json: (value) => typeof value === "object",
};

function valid(one, value) {
  if (value === undefined && !one.nullable) throw new RequestError(one.name, "is missing");
  if (value === undefined || value === null) {
    if (one.nullable) return null;
    throw new RequestError(one.name, "is null, and may not be");
  }
  if (!HOLDS[one.type](value)) throw new RequestError(one.name, `must be ${NAMED[one.type]}`);
  const found = one.type === "instant" ? instant(one.name, value) : value;
  if (one.id && found === "") throw new RequestError(one.name, "is empty; an id needs at least one character");
  if (one.low !== null && !(one.low <= found && found <= one.high)) throw new RequestError(one.name, `must be from ${one.low} to ${one.high}`);
  if (one.allowed.length && !one.allowed.includes(found)) throw new RequestError(one.name, `must be one of ${one.allowed.join(", ")}`);
  return found;
}

function typed(one, value) {
  const holds = one.type === "instant" ? HOLDS.int : HOLDS[one.type];
  if (value !== null && !holds(value)) throw new RequestError(one.name, `must be ${NAMED[one.type] ?? "a list or map"} or null`);
  return value;
}

const ISO = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)?(Z|[+-]\d\d:\d\d)?$/;

// Microseconds since 1970-01-01T00:00:00Z.
function instant(name, text) {
  const parts = ISO.exec(text);
  const seconds = parts && Date.UTC(parts[1], parts[2] - 1, parts[3], parts[4] ?? 0, parts[5] ?? 0, parts[6] ?? 0) / 1000;
  const day = parts && new Date(Date.UTC(parts[1], parts[2] - 1, parts[3])).getUTCDate() === Number(parts[3]);
  if (!parts || !day || parts[2] > 12 || parts[4] > 23 || parts[5] > 59 || parts[6] > 59) {
    throw new RequestError(name, "must be a date and time in ISO 8601, for example 2025-03-01T12:00:00Z");
  }
  const zone = parts[8] ?? "Z";
  const ahead = zone === "Z" ? 0 : (zone[0] === "-" ? -60 : 60) * (60 * zone.slice(1, 3) + Number(zone.slice(4)));
  return (seconds - ahead) * 1e6 + Number((parts[7] ?? "0").padEnd(6, "0"));
}

function result(one, value) {
  if (value === null || value === undefined || (typeof value === "number" && !Number.isFinite(value))) return one.default;
  if (one.type === "str") return String(value);
  if (one.type === "bool") return Boolean(value);
  return one.type === "float" ? Number(value) : Math.trunc(value);
}
