declare module 'swagger-ui-dist/*' {
  /** The path of the file: in the package, or inside the executable. */
  const path: string
  export default path
}
