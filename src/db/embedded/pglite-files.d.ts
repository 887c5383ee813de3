declare module '@electric-sql/pglite/*' {
  /** Where the file is: in the package, or inside the executable. */
  const path: string
  export default path
}
