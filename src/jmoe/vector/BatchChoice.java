package jmoe.vector;

/** What the tokens of a batch have agreed on, ready to be asked by every worker. */
interface BatchChoice {
    /**
     * The experts of a token that is served.
     *
     * @param worker who asks
     * @param token which token
     * @param ids receives them by falling candidate, at most topK
     * @return how many there are
     */
    int choose(int worker, int token, int[] ids);
}
