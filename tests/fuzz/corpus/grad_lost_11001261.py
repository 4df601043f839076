# grad:lost differed
KIND = 'wild'
w1 = fs.to_tensor([[0.2, 0.6, -0.09785142521790352, 0.1, 3.0, -0.3086719908738118, 0.6334367967499005, 0.02536040243801555, 0.4209081157484572, 1.2, 1.662, 2.0, 0.9, 0.5, 3.0, 0.495], [0.5, 1.164, 1.082896823263282, 0.63, 0.341, 0.354, -1.956, -1.1, 0.157, -2.0, -2.0, 0.6, 0.9, -1.2932643392637075, -1.5, 2.0]])

def f(x2):
    v3 = [abs(e) for e in x2]
    t4 = fs.min([v3[1], v3[0], x2[0]])
    t4 = fs.loop(3, lambda z5: z5 * 0.5 + sum(x2.tolist()) * x2[0], t4)
    t6 = fs.max([t4, t4, t4])
    try:
        t6 = math.sqrt(fs.sigmoid(t4))
        t6 = t6 + math.log(math.sinh(0.25 * x2[0]))
    except ValueError:
        t6 = math.sin(t4)
    return t6 * sum(x2) * v3[1] * (fs.max([t4, (t6 * 0), (v3[0] - 1)]) * math.asin(t6))

ARGUMENTS = [np.array([[0.0, 1e+308], [5e-324, 0.0], [-2.2, 5e-324], [-0.056, 0.5]])]
PLAN = [('limited',), ('call', 1), ('map', None, 2), ('grad', [0], [0, 2], 1)]
