/** What Alpine adds to a component. */
export interface Magics {
  $watch(name: string, callback: (value: unknown) => void): void;
  $dispatch(name: string, detail: object): void;
}

/** Put the members of two objects together, getters as getters. */
export function withMembers<T extends object, M extends object>(
  base: T,
  more: M & ThisType<T & M>,
): T & M {
  return Object.defineProperties(base, Object.getOwnPropertyDescriptors(more)) as T & M;
}
