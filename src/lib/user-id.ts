declare const isUserId: unique symbol

/**
 * The id of the user whose rows a statement may read and change. Only what has proved who the user is makes one: so no id
 * from a request, such as that of a task, can be passed in its place.
 */
export type UserId = string & { readonly [isUserId]: true }
