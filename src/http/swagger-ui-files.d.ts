declare module 'swagger-ui-dist/*' {
  /** Where the file is: in the package, or inside the executable. */
  const path: string
  export default path
}
