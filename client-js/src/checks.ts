/** Checks of data from outside: what behind them has a type may be trusted to have it. */

export type Check = (value: unknown) => boolean;

/** The fields that an object must have, each with its check. */
export type Fields = Readonly<Record<string, Check>>;

export const isString: Check = (value) => typeof value === "string";
export const isCount: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
export const isNumber: Check = (value) => Number.isFinite(value);
export const isBoolean: Check = (value) => typeof value === "boolean";

export const isOneOf =
  (...values: readonly unknown[]): Check =>
  (value) =>
    values.includes(value);

export const isNullOr =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);

/** For a field that may be absent. */
export const isOptional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

export const isListOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);

export const isRecordOf =
  (check: Check): Check =>
  (value) =>
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every(check);

export const isObjectOf =
  (fields: Fields): Check =>
  (value) =>
    pick(fields, value) !== null;

/** Only these fields of `data`, without those that are absent; null if one is not what it should be. */
export function pick(fields: Fields, data: unknown): object | null {
  if (typeof data !== "object" || data === null) return null;
  const source = data as Record<string, unknown>;
  const found: Record<string, unknown> = {};
  for (const [name, check] of Object.entries(fields)) {
    const value = source[name];
    if (!check(value)) return null;
    if (value !== undefined) found[name] = value;
  }
  return found;
}
