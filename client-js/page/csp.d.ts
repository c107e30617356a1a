// The CSP build has the same interface as Alpine itself, and no types of its own.
declare module "@alpinejs/csp" {
  export { default } from "alpinejs";
}
