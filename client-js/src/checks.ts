/** Checks of data from outside: what behind them has a type may be trusted to have it. */

export type Check = (value: unknown) => boolean;

/** The fields that an object must have, each with its check. */
export type Fields = Readonly<Record<string, Check>>;

export const isString: Check = (value) => typeof value === "string";
export const isCount: Check = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
export const isNumber: Check = (value) => Number.isFinite(value);

export const isOneOf =
  (...values: readonly unknown[]): Check =>
  (value) =>
    values.includes(value);

export const isNullOr =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);

export const isListOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every((item) => check(item));

export const isObjectOf =
  (fields: Fields): Check =>
  (value) =>
    pick(fields, value) !== null;

/** Only these fields of `data`; null if one is missing or not what it should be. */
export function pick(fields: Fields, data: unknown): object | null {
  if (typeof data !== "object" || data === null) return null;
  const source = data as Record<string, unknown>;
  const names = Object.keys(fields);
  if (!names.every((name) => fields[name]?.(source[name]))) return null;
  return Object.fromEntries(names.map((name) => [name, source[name]]));
}
